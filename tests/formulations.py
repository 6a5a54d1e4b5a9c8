"""What any formulation of a convolution is held to: the library's values and gradients."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def assert_values_and_gradients_are_the_same(
    ours: Callable, library: Callable, x: jax.Array, kernel: jax.Array
) -> None:
    """Asserts that both functions of ``x`` and ``kernel`` and their gradients agree in float32."""
    change = np.random.default_rng(1).standard_normal(library(x, kernel).shape, np.float32)

    def both(function):
        values, back = jax.vjp(function, x, kernel)
        return values, *back(jnp.asarray(change))

    found, expected = jax.jit(lambda: (both(ours), both(library)))()
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)


def assert_bfloat16_stays_bfloat16(
    ours: Callable, library: Callable, x: jax.Array, kernel: jax.Array
) -> None:
    """Asserts that nothing becomes wider, and that it agrees with the library's float32."""
    narrow = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16))
    values, back = jax.jit(partial(jax.vjp, ours))(*narrow)
    gradients = back(jnp.ones_like(values))
    assert {a.dtype for a in (values, *gradients)} == {jnp.dtype(jnp.bfloat16)}
    expected, back = jax.vjp(library, x, kernel)
    for a, b in zip((values, *gradients), (expected, *back(jnp.ones_like(expected))), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.05 * np.abs(b).max())
