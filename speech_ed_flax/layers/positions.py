"""Positions that are computed and not learned."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.types import Array


def sinusoids(rows: int, width: int, first: int = 0) -> np.ndarray:
    """Returns sines, then cosines, of positions ``first`` on (tensor2tensor's; not interleaved).

    Args:
        rows: number of positions.
        width: of each; the last number is 0 if it is odd.
        first: of the positions.

    Returns:
        float32 ``[rows, width]``.
    """
    half = width // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-np.log(10_000) / (half - 1)))
    angles = np.arange(first, first + rows, dtype=np.float32)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, width % 2)))


def initial_sinusoids(key: Any, shape: tuple[int, int], dtype: Any = jnp.float32) -> Array:
    """Returns what a learned table of positions begins with; none of it is random.

    Args:
        key: not used; initialisers have one.
        shape: positions and width.
        dtype: of the result.
    """
    del key
    return jnp.asarray(sinusoids(*shape), dtype)
