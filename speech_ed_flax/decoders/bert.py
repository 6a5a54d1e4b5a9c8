"""BERT (Devlin et al., 2018) as a causal decoder.

Behaviour matched: transformers 5.23 ``BertLMHeadModel`` with ``is_decoder`` and
``add_cross_attention``.
"""

from typing import Any

from speech_ed_flax.layers.bert import BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names


class BertConfig(BertLikeConfig):
    """Shape of a BERT decoder."""

    @classmethod
    def from_hf(cls, hf: Any) -> "BertConfig":
        """Reads a ``BertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(**cls.shared(hf))


BERT = bert_family(
    "bert", BertConfig, bert_names("bert") | PREDICTIONS, bias="cls.predictions.bias"
)
