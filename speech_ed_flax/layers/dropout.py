"""Dropout that is on exactly when the caller gives a ``"dropout"`` key."""

import flax.linen as nn

from speech_ed_flax.types import Array, Float


class Dropout(nn.Module):
    """Zeroes entries at ``rate`` under a ``"dropout"`` key and is the identity without one."""

    rate: float

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Drops entries of ``x``; the shape is unchanged."""
        return nn.Dropout(self.rate)(x, deterministic=not self.has_rng("dropout"))
