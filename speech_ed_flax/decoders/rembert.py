"""RemBERT (Chung et al., 2021) as a causal decoder.

Behaviour matched: transformers 5.23 ``RemBertForCausalLM`` with ``is_decoder`` and
``add_cross_attention``, whose output layer is never its embedding.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.layers.bert import BertLikeConfig
from speech_ed_flax.layers.bert_family import bert_family, bert_names


@dataclass(frozen=True, kw_only=True)
class RemBertConfig(BertLikeConfig):
    """Shape of a RemBERT decoder: narrow embeddings, a wide output."""

    @classmethod
    def from_hf(cls, hf: Any) -> "RemBertConfig":
        """Reads a ``RemBertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        own = {
            "embedding_width": hf.input_embedding_size,
            "embedding_projection": True,
            "output_width": hf.output_embedding_size,
            "tied": False,  # whatever tie_word_embeddings says
        }
        return cls(**cls.shared(hf) | own)


_NAMES = bert_names("rembert") | {
    "embedding_projection": "rembert.encoder.embedding_hidden_mapping_in",
    "transform": "cls.predictions.dense",
    "transform_norm": "cls.predictions.LayerNorm",
    "head": "cls.predictions.decoder",
}

REMBERT = bert_family("rembert", RemBertConfig, _NAMES, may_tie=False)
