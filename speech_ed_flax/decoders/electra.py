"""ELECTRA (Clark et al., 2020) as a causal decoder.

Behaviour matched: transformers 5.23 ``ElectraForCausalLM`` with ``is_decoder`` and
``add_cross_attention``.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.layers.bert import BertLikeConfig
from speech_ed_flax.layers.bert_family import bert_family, bert_names


@dataclass(frozen=True, kw_only=True)
class ElectraConfig(BertLikeConfig):
    """Shape of an ELECTRA decoder: embeddings may be narrower than the layers."""

    @classmethod
    def from_hf(cls, hf: Any) -> "ElectraConfig":
        """Reads an ``ElectraConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        own = {
            "embedding_width": hf.embedding_size,
            "embedding_projection": hf.embedding_size != hf.hidden_size,
            "transform": "gelu",  # whatever hidden_act says
            "output_width": hf.embedding_size,
        }
        return cls(**cls.shared(hf) | own)


_OUTPUT = {
    "transform": "generator_predictions.dense",
    "transform_norm": "generator_predictions.LayerNorm",
    "head": "generator_lm_head",
}

ELECTRA = bert_family(
    "electra",
    ElectraConfig,
    bert_names("electra") | _OUTPUT,
    unread=("discriminator_predictions", "sequence_summary", "classifier", "qa_outputs"),
)
