"""Attention that knows positions by turning queries and keys (rotary; Su et al., 2021)."""

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.layers.attention import Attention
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.sizes import count, library_of
from speech_ed_flax.types import Array, Float


class TurnedDense(Dense):
    """Projects, then turns pairs of neighbours by the angles of their frame.

    Attributes:
        heads: that the output is split into; the first pairs of each are turned.
        rates: radians a frame of each pair.
    """

    heads: int = 1
    rates: tuple[float, ...] = ()

    def __call__(self, x: Float[Array, "batch frames width"]) -> Float[Array, "batch frames width"]:
        """Projects and turns ``x``."""
        y = super().__call__(x)
        times = count(x.shape[1], np.float32)
        angles = times[:, None, None] * np.asarray(self.rates, np.float32)
        library = library_of(angles)
        parts = library.cos(angles), library.sin(angles)
        cosine, sine = (jnp.asarray(part, y.dtype) for part in parts)
        split = y.reshape(*y.shape[:2], self.heads, -1)
        turned = 2 * len(self.rates)
        even, odd = split[..., :turned:2], split[..., 1:turned:2]
        pairs = jnp.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1)
        pairs = pairs.reshape(*split.shape[:3], turned)
        return jnp.concatenate([pairs, split[..., turned:]], -1).reshape(y.shape)


class TurnedAttention(Attention):
    """Attention of queries and keys that are turned by their positions; its output has no bias.

    Attributes:
        rates: see ``TurnedDense``.
    """

    rates: tuple[float, ...] = ()

    def setup(self):
        """Creates the four projections."""
        self.query = TurnedDense(self.width, self.use_bias, self.heads, self.rates)
        self.key = TurnedDense(self.width, self.use_bias, self.heads, self.rates)
        self.value = Dense(self.width, self.use_bias)
        self.out = Dense(self.width, use_bias=False)
        self.drop = Dropout(self.dropout)
