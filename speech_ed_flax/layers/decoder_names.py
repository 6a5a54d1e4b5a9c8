"""How the checkpoints of BART and of the many models built after it name a decoder."""


def bart_names(
    output: str, root: str = "model.decoder.", last_norm: str = "layer_norm"
) -> dict[str, str]:
    """Returns the rows of a family's table.

    Args:
        output: name of the output layer.
        root: what the names of everything else begin with.
        last_norm: name, behind ``root``, of the norm after the layers.
    """
    layer = root + "layers.{}."
    names = {
        "tokens": root + "embed_tokens",
        "positions": root + "embed_positions",
        "embedding_norm": root + "layernorm_embedding",
        "transformer/norm": root + last_norm,
        "transformer/layers_{}/self_attention_norm": layer + "self_attn_layer_norm",
        "transformer/layers_{}/cross_attention_norm": layer + "encoder_attn_layer_norm",
        "transformer/layers_{}/feed_forward/up": layer + "fc1",
        "transformer/layers_{}/feed_forward/down": layer + "fc2",
        "transformer/layers_{}/feed_forward_norm": layer + "final_layer_norm",
        "head": output,
    }
    for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        for part in ("query", "key", "value", "out"):
            leaf = "out_proj" if part == "out" else f"{part[0]}_proj"
            names[f"transformer/layers_{{}}/{ours}/{part}"] = f"{layer}{theirs}.{leaf}"
    return names
