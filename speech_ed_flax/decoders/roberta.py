"""RoBERTa (Liu et al., 2019) and its kin as causal decoders.

Behaviour matched: transformers 5.23 ``RobertaForCausalLM`` and those of CamemBERT (Martin et al.,
2019), XLM-RoBERTa (Conneau et al., 2019) and its XL (Goyal et al., 2021), data2vec (Baevski et
al., 2022) and RoBERTa-PreLayerNorm (Wettig et al., 2022), each with ``is_decoder`` and
``add_cross_attention``.
"""

from typing import Any

from speech_ed_flax.family import Family
from speech_ed_flax.layers.bert_family import bert_family, bert_names
from speech_ed_flax.layers.placement import split_rows
from speech_ed_flax.layers.roberta import BIAS, OUTPUT, RobertaLike, RobertaLikeConfig
from speech_ed_flax.layers.transformer import DecoderLayer, TransformerDecoder
from speech_ed_flax.types import Array, Float


class RobertaConfig(RobertaLikeConfig):
    """Shape of a RoBERTa decoder: post-norm, or pre-norm in two of its kin."""

    @classmethod
    def from_hf(cls, hf: Any) -> "RobertaConfig":
        """Reads a ``RobertaConfig`` of transformers, or that of one of its kin.

        Raises:
            ConfigError: naming the field that is missing or not supported.
        """
        extra_large = hf.model_type == "xlm-roberta-xl"
        fields = cls.shared(hf, pre_norm=extra_large or hf.model_type == "roberta-prelayernorm")
        fields["embedding_norm"] = not extra_large
        return cls(**fields)


class ExtraLargeLayer(DecoderLayer):
    """A pre-norm layer without dropout behind its feed-forward network."""

    def feed(self, x: Float[Array, "batch queries width"]) -> Float[Array, "batch queries width"]:
        """Applies the feed-forward network, as the last thing that the layer does."""
        return split_rows(x + self.feed_forward(self.feed_forward_norm(x)))


class ExtraLarge(RobertaLike):
    """XLM-RoBERTa-XL, which has layers of its own."""

    def make_transformer(self) -> TransformerDecoder:
        """Returns the stack that ``config`` describes."""
        return TransformerDecoder(self.config.layer, self.config.layers, ExtraLargeLayer)


def _family(
    model: str,
    norms: dict[str, str] | None = None,
    module: type[RobertaLike] = RobertaLike,
) -> Family:
    """Returns a family; ``norms`` are the rows of those that are not where RoBERTa's are."""
    names = bert_names(model) | OUTPUT | (norms or {})
    return bert_family(model, RobertaConfig, names, module=module, bias=BIAS)


_OURS = "transformer/layers_{}/"
_XL = "roberta.encoder.layer.{}."
_PRE = "roberta_prelayernorm.encoder.layer.{}."

ROBERTA = _family("roberta")
DATA2VEC_TEXT = _family("data2vec_text")
XLM_ROBERTA_XL = _family(
    "roberta",
    {
        _OURS + "self_attention_norm": _XL + "attention.self_attn_layer_norm",
        _OURS + "cross_attention_norm": _XL + "crossattention.self_attn_layer_norm",
        _OURS + "feed_forward_norm": _XL + "LayerNorm",
        "transformer/norm": "roberta.encoder.LayerNorm",
    },
    ExtraLarge,
)
ROBERTA_PRELAYERNORM = _family(
    "roberta_prelayernorm",
    {
        _OURS + "self_attention_norm": _PRE + "attention.LayerNorm",
        _OURS + "cross_attention_norm": _PRE + "crossattention.LayerNorm",
        _OURS + "feed_forward_norm": _PRE + "intermediate.LayerNorm",
        "transformer/norm": "roberta_prelayernorm.LayerNorm",
    },
)
