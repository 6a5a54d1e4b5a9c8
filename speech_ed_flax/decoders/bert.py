"""BERT (Devlin et al., 2018) as a causal decoder, BertGeneration and Megatron's BERT.

Behaviour matched: transformers 5.23 ``BertLMHeadModel``, ``BertGenerationDecoder`` and
``MegatronBertForCausalLM`` with ``is_decoder`` and ``add_cross_attention``. Upstream's Megatron
can only listen where there are as many encoder states as tokens, by an oversight: as in
transformers 4, any number of them is read here.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.layers.bert import BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names


@dataclass(frozen=True, kw_only=True)
class BertConfig(BertLikeConfig):
    """Shape of a BERT decoder."""

    @classmethod
    def from_hf(cls, hf: Any) -> "BertConfig":
        """Reads a ``BertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(**cls.shared(hf))


@dataclass(frozen=True, kw_only=True)
class BertGenerationConfig(BertLikeConfig):
    """Shape of a BertGeneration decoder (Rothe et al., 2020): no token types, no transform."""

    @classmethod
    def from_hf(cls, hf: Any) -> "BertGenerationConfig":
        """Reads a ``BertGenerationConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        own: dict[str, Any] = {"token_types": None, "transform": None}
        return cls(**cls.shared(hf) | own)


@dataclass(frozen=True, kw_only=True)
class MegatronBertConfig(BertLikeConfig):
    """Shape of a Megatron BERT decoder (Shoeybi et al., 2019): norms before the sublayers."""

    @classmethod
    def from_hf(cls, hf: Any) -> "MegatronBertConfig":
        """Reads a ``MegatronBertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(**cls.shared(hf, pre_norm=True), embedding_norm=False)


_NAMES = bert_names("bert")
_LAYER = "bert.encoder.layer.{}."
_MEGATRON_NORMS = {
    "transformer/norm": "bert.encoder.ln",
    "transformer/layers_{}/self_attention_norm": _LAYER + "attention.ln",
    "transformer/layers_{}/cross_attention_norm": _LAYER + "crossattention.ln",
    "transformer/layers_{}/feed_forward_norm": _LAYER + "ln",
}

BERT = bert_family("bert", BertConfig, _NAMES | PREDICTIONS, bias="cls.predictions.bias")
BERT_GENERATION = bert_family(
    "bert", BertGenerationConfig, _NAMES | {"head": "lm_head.decoder"}, bias="lm_head.bias"
)
MEGATRON_BERT = bert_family(
    "bert",
    MegatronBertConfig,
    _NAMES | PREDICTIONS | _MEGATRON_NORMS,
    bias="cls.predictions.bias",
)
