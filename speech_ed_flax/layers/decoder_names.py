"""How the checkpoints of BART and of the many models built after it name a decoder."""


def bart_names(output: str) -> dict[str, str]:
    """Returns the rows of a family's table; ``output`` is the name of the output layer."""
    layer = "model.decoder.layers.{}."
    names = {
        "tokens": "model.decoder.embed_tokens",
        "positions": "model.decoder.embed_positions",
        "embedding_norm": "model.decoder.layernorm_embedding",
        "transformer/norm": "model.decoder.layer_norm",
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
