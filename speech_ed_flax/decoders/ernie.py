"""ERNIE (Sun et al., 2019; 2.0 and 3.0 as well) as a causal decoder.

Behaviour matched: transformers 5.23 ``ErnieForCausalLM`` with ``is_decoder`` and
``add_cross_attention``, for the first task.
"""

from dataclasses import dataclass
from typing import Any

from speech_ed_flax.layers.bert import BertLike, BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names
from speech_ed_flax.layers.linear import Embed


@dataclass(frozen=True, kw_only=True)
class ErnieConfig(BertLikeConfig):
    """Shape of an ERNIE decoder.

    Attributes:
        task_types: rows of the task type table; a decoder uses the first. None: no table.
    """

    task_types: int | None = None

    @classmethod
    def from_hf(cls, hf: Any) -> "ErnieConfig":
        """Reads an ``ErnieConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        task_types = hf.task_type_vocab_size if hf.use_task_id else None
        return cls(**cls.shared(hf), task_types=task_types)


class Ernie(BertLike):
    """BERT that is told its task."""

    config: ErnieConfig

    def setup(self):
        """Creates the modules."""
        super().setup()
        if self.config.task_types is not None:
            self.task_types = Embed(self.config.task_types, self.config.embedding_width)

    def add_up(self, tokens, positions):
        """Sums token, position, token type and (first) task type embeddings."""
        x = super().add_up(tokens, positions)
        return x if self.config.task_types is None else x + self.task_types.embedding[0]


_TASKS = {"task_types": "ernie.embeddings.task_type_embeddings"}

ERNIE = bert_family(
    "ernie",
    ErnieConfig,
    bert_names("ernie") | PREDICTIONS | _TASKS,
    module=Ernie,
    bias="cls.predictions.bias",
)
