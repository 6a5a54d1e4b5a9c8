"""Normalisations: over the width, over time, and by stored statistics."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.types import Array, Bool, Float

# Variance in two passes: the fast one (mean of squares) loses digits that parity needs.
LayerNorm = partial(nn.LayerNorm, use_fast_variance=False)

ScaleNorm = partial(LayerNorm, use_bias=False)
"""A ``LayerNorm`` without a bias."""

TORCH_EPSILON = 1e-5
"""Epsilon of every norm that upstream builds without naming one."""


class TimeNorm(nn.Module):
    """Normalises each channel over time: torch's ``GroupNorm`` with one channel a group.

    With a mask only the real frames count, so a clip's result does not depend on its padding.

    Attributes:
        axes: that are normalised over; ``(1, 2)`` is a ``GroupNorm`` of one group.
    """

    epsilon: float = TORCH_EPSILON
    axes: tuple[int, ...] = (1,)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None = None
    ) -> Float[Array, "batch frames width"]:
        """Normalises ``x`` over its frames, or over those that ``mask`` says are real."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        wide = x.astype(jnp.float32)
        where = None if mask is None else mask[:, :, None]
        count = x.shape[1] if where is None else jnp.maximum(where.sum(1, keepdims=True), 1)
        count = count * (x.shape[2] if 2 in self.axes else 1)
        mean = jnp.sum(wide, self.axes, keepdims=True, where=where) / count
        centred = wide - mean
        variance = jnp.sum(jnp.square(centred), self.axes, keepdims=True, where=where) / count
        normalised = centred * jax.lax.rsqrt(variance + self.epsilon)
        return (normalised * scale + bias).astype(x.dtype)


class StoredNorm(nn.Module):
    """Normalises by stored statistics: torch's ``BatchNorm1d`` in evaluation mode.

    The statistics are leaves of the parameters that no gradient reaches, so that one tree holds
    all of a checkpoint.
    """

    epsilon: float = TORCH_EPSILON

    @nn.compact
    def __call__(self, x: Float[Array, "batch frames width"]) -> Float[Array, "batch frames width"]:
        """Scales and shifts each channel of ``x``."""
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = jax.lax.stop_gradient(self.param("mean", nn.initializers.zeros, shape))
        variance = jax.lax.stop_gradient(self.param("variance", nn.initializers.ones, shape))
        wide = (x.astype(jnp.float32) - mean) * jax.lax.rsqrt(variance + self.epsilon)
        return (wide * scale + bias).astype(x.dtype)
