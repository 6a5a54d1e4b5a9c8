"""BigBird (Zaheer et al., 2020) as a causal decoder with full attention.

Behaviour matched: transformers 4 ``FlaxBigBirdForCausalLM`` with ``add_cross_attention``. The one
in PyTorch, up to 5.23, lets the self-attention read the encoder in place of the text, and the
cross-attention read its padding: no token then depends on those before it. Like both, this
decoder has full attention, whatever ``attention_type`` says: a text is short.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.bert import BertLike, BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names
from speech_ed_flax.layers.linear import INITIALISE


@dataclass(frozen=True, kw_only=True)
class BigBirdConfig(BertLikeConfig):
    """Shape of a BigBird decoder."""

    @classmethod
    def from_hf(cls, hf: Any) -> "BigBirdConfig":
        """Reads a ``BigBirdConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        if not hf.use_bias:
            raise ConfigError("use_bias=False is not supported: use True, as published models do.")
        scale = hf.hidden_size**0.5 if hf.rescale_embeddings else 1.0
        return cls(**cls.shared(hf), embedding_scale=scale)


class BigBird(BertLike):
    """BERT whose embeddings are normalised after dropout.

    Every checkpoint holds a pooler, as upstream's decoder does; nothing reads it.
    """

    config: BigBirdConfig

    def setup(self):
        """Creates the modules."""
        super().setup()
        width = self.config.width
        self.pooler_weight = self.param("pooler_weight", INITIALISE, (width, width))
        self.pooler_bias = self.param("pooler_bias", nn.initializers.zeros, (width,))

    def embed(self, tokens, positions):
        """Embeds tokens at their positions."""
        return self.embedding_norm(self.drop(self.add_up(tokens, positions)))


_POOLER = {"pooler_weight": "bert.pooler.weight", "pooler_bias": "bert.pooler.bias"}

BIG_BIRD = bert_family(
    "bert",
    BigBirdConfig,
    bert_names("bert") | PREDICTIONS | _POOLER,
    module=BigBird,
    bias="cls.predictions.bias",
    unread=("classifier", "qa_classifier"),
    fresh=(r"^pooler_",),
)
