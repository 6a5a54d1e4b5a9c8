"""RoFormer (Su et al., 2021) as a causal decoder: positions turn queries and keys.

Behaviour matched: transformers 5.23 ``RoFormerForCausalLM`` with ``is_decoder`` and
``add_cross_attention``.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp

from speech_ed_flax.layers.attention import KeyValue
from speech_ed_flax.layers.bert import BertLike, BertLikeConfig
from speech_ed_flax.layers.bert_family import PREDICTIONS, bert_family, bert_names
from speech_ed_flax.layers.positions import StoredSinusoids
from speech_ed_flax.layers.transformer import DecoderLayer, TransformerDecoder
from speech_ed_flax.types import Array, Float, Int


@dataclass(frozen=True, kw_only=True)
class RoFormerConfig(BertLikeConfig):
    """Shape of a RoFormer decoder.

    Attributes:
        turned_values: whether values are turned by their positions, as keys are.
    """

    turned_values: bool

    @classmethod
    def from_hf(cls, hf: Any) -> "RoFormerConfig":
        """Reads a ``RoFormerConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        own = {
            "learned_positions": False,
            "embedding_width": hf.embedding_size,
            "embedding_projection": hf.embedding_size != hf.hidden_size,
            "output_width": hf.embedding_size,
            "turned_values": hf.rotary_value,
        }
        return cls(**cls.shared(hf) | own)


def turn(
    sinusoids: Float[Array, "batch queries head_dim"],
    x: Float[Array, "batch heads queries head_dim"],
) -> Float[Array, "batch heads queries head_dim"]:
    """Turns pairs of neighbours in ``x`` by angles of which ``sinusoids`` are sines and cosines."""
    sine, cosine = jnp.split(sinusoids[:, None].astype(x.dtype), 2, axis=-1)
    even, odd = x[..., ::2], x[..., 1::2]
    return jnp.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1).reshape(x.shape)


class TurnedLayer(DecoderLayer):
    """A layer whose self-attention reads ``sinusoids``; the cross-attention knows no position."""

    turned_values = False

    def attend(self, x, cache, index, mask, sinusoids):
        """Reads the text, its tokens turned by their positions."""
        turned = partial(turn, sinusoids)
        key, value = self.self_attention.project(x)
        key_value = KeyValue(turned(key), turned(value) if self.turned_values else value)
        if cache is not None:
            key_value = cache = cache.write(key_value, index)
        return self.self_attention(x, key_value, mask, turn=turned), cache


class TurnedValuesLayer(TurnedLayer):
    """A layer that turns values too."""

    turned_values = True


class RoFormer(BertLike):
    """BERT that knows positions by angles."""

    config: RoFormerConfig

    def setup(self):
        """Creates the modules."""
        super().setup()
        layer = self.config.layer
        self.positions = StoredSinusoids(self.config.positions, layer.width // layer.heads)

    def make_transformer(self) -> TransformerDecoder:
        """Returns the stack that ``config`` describes."""
        kind = TurnedValuesLayer if self.config.turned_values else TurnedLayer
        return TransformerDecoder(self.config.layer, self.config.layers, kind=kind)

    def shared(self, positions: Int[Array, "#rows target"]) -> tuple[Array, ...]:
        """Returns sines and cosines of the angles, ``[#rows, target, head_dim]``."""
        return (self.positions(positions),)


_POSITIONS = "roformer.encoder.embed_positions"
_TABLE = {"positions": _POSITIONS, "positions/sinusoids": f"{_POSITIONS}.weight"}

ROFORMER = bert_family(
    "roformer",
    RoFormerConfig,
    bert_names("roformer") | PREDICTIONS | _TABLE,
    module=RoFormer,
    bias="cls.predictions.bias",
    fresh=(r"^positions/sinusoids$",),
)
