"""Dropout that is on exactly when the caller gives a ``"dropout"`` key."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.types import Array, Bool, Float, PRNGKeyArray

LEVELS = 1 << 16
"""Rates are multiples of one in so many: half of a random word decides on an entry. Words are a
tenth of the time of a training step on XLA:CPU if each decides on one entry alone."""


class Dropout(nn.Module):
    """Zeroes entries at ``rate`` under a ``"dropout"`` key and is the identity without one.

    Which entries is a function of the key and the shape (threefry), on any number of devices.
    """

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "*batch time width"]) -> Float[Array, "*batch time width"]:
        """Drops entries of ``x`` and scales the others up, so that the mean stays."""
        dropped = round(self.rate * LEVELS)
        if not (dropped and self.has_rng("dropout")):
            return x
        if dropped == LEVELS:
            return jnp.zeros_like(x)
        kept = draw_kept(self.make_rng("dropout"), x.shape, dropped)
        return jnp.where(kept, x * (LEVELS / (LEVELS - dropped)), 0)


def draw_kept(
    key: PRNGKeyArray, shape: tuple[int, ...], dropped: int
) -> Bool[Array, "*batch time width"]:
    """Draws which entries are kept: all but ``dropped`` of ``LEVELS``, on average.

    The halves of a word are for two times that lie half the length apart: time is the one axis that
    is never split over devices, and both halves are filled without moving an entry.
    """
    *batch, time, width = shape
    words = jax.random.bits(key, (*batch, -(-time // 2), width), jnp.uint32)
    halves = [words % LEVELS >= dropped, words // LEVELS >= dropped]
    return jnp.concatenate(halves, -2)[..., :time, :]
