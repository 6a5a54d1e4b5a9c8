"""How the checkpoints of BERT and of its kin name a decoder."""

from collections.abc import Mapping
from typing import Any

from speech_ed_flax.family import Family, unchanged
from speech_ed_flax.layers.bert import BertLike
from speech_ed_flax.types import State


def bert_names(model: str) -> dict[str, str]:
    """Returns the rows of a family's table without those of the output.

    Args:
        model: name of the module that holds all but the output.
    """
    embeddings, layer = f"{model}.embeddings.", f"{model}.encoder.layer.{{}}."
    names = {
        "tokens": embeddings + "word_embeddings",
        "positions": embeddings + "position_embeddings",
        "token_types": embeddings + "token_type_embeddings",
        "embedding_norm": embeddings + "LayerNorm",
        "embedding_projection": f"{model}.embeddings_project",
        "transformer/layers_{}/feed_forward/up": layer + "intermediate.dense",
        "transformer/layers_{}/feed_forward/down": layer + "output.dense",
        "transformer/layers_{}/feed_forward_norm": layer + "output.LayerNorm",
    }
    for ours, theirs in (("self_attention", "attention"), ("cross_attention", "crossattention")):
        row = f"transformer/layers_{{}}/{ours}"
        for part in ("query", "key", "value"):
            names[f"{row}/{part}"] = f"{layer}{theirs}.self.{part}"
        names[f"{row}/out"] = f"{layer}{theirs}.output.dense"
        names[f"{row}_norm"] = f"{layer}{theirs}.output.LayerNorm"
    return names


PREDICTIONS = {
    "transform": "cls.predictions.transform.dense",
    "transform_norm": "cls.predictions.transform.LayerNorm",
    "head": "cls.predictions.decoder",
}
"""Rows of the output of BERT and most of its kin."""


def bert_family(
    model: str,
    config: type,
    names: Mapping[str, str],
    *,
    module: type[BertLike] = BertLike,
    bias: str | None = None,
    may_tie: bool = True,
    unread: tuple[str, ...] = ("pooler", "classifier", "qa_outputs"),
    fresh: tuple[str, ...] = (),
) -> Family:
    """Returns the family of a model of BERT's kind.

    Args:
        model: name of the module that holds all but the output.
        config: of the decoder.
        names: all rows of the family's table.
        module: class of the decoder.
        bias: the other name of the bias of the output layer, if it has two.
        may_tie: whether upstream ties the output layer to the embedding where the config says so.
        unread: modules that its checkpoints may hold and this decoder leaves out.
        fresh: patterns of more of our paths that its checkpoints may lack.
    """
    head = names["head"]
    roots = "|".join(sorted({name.partition(".")[0] for name in names.values()}))
    regular, irregular = unchanged, unchanged
    if bias is not None:
        regular, irregular = _one_bias(bias, f"{head}.bias")
    return Family(
        config=config,
        module=module,
        names=names,
        aliases=((rf"^(?!({roots})\.)", f"{model}."),),
        unused=(
            rf"^{model}\.({'|'.join(unread)})\.",
            r"^cls\.seq_relationship\.",
            r"\.(position|token_type)_ids$",
        ),
        fresh=(r"/cross_attention(_norm)?/", r"^(transform|transform_norm|head)/", *fresh),
        tied=(f"{head}.weight", f"{names['tokens']}.weight") if may_tie else None,
        regular=regular,
        irregular=irregular,
    )


def _one_bias(other: str, bias: str):
    """Returns what keeps one of the two names of the output bias, and what undoes it."""

    def regular(state: State, config: Any) -> State:
        del config
        found = state.get(bias, state.get(other))
        rest = {name: tensor for name, tensor in state.items() if name not in (bias, other)}
        return rest if found is None else rest | {bias: found}

    def irregular(state: State, config: Any) -> State:
        """PyTorch writes it twice if the output layer is not tied."""
        twice = state | {other: state[bias]}
        return {n: t for n, t in twice.items() if n != bias} if config.tied else twice

    return regular, irregular
