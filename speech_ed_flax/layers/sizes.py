"""Sizes that may be open: integers, or dimensions that ``jax.export`` has left symbolic.

Of integers everything here is what Python makes of them, so that the program is the same as
without it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import core

from speech_ed_flax.types import Array, Int, Size

_FAR = 1 << 20  # more frames than any clip has


def surely(test: Callable[[], bool]) -> bool:
    """Tells whether a test of sizes is True whatever the open ones turn out to be."""
    try:
        return test()
    except jax.errors.InconclusiveDimensionOperation:
        return False


def larger(one: Size, other: Size) -> Size:
    """Returns the larger of two sizes."""
    return core.max_dim(one, other)


def count(size: Size, dtype: type = int) -> np.ndarray | Array:
    """Returns 0 to ``size - 1``: made on the host unless the size is open."""
    return jnp.arange(size, dtype=dtype) if is_open(size) else np.arange(size, dtype=dtype)


def library_of(numbers: np.ndarray | Array) -> Any:
    """Returns ``numpy`` for what was made on the host, and ``jax.numpy`` for what is traced."""
    return np if isinstance(numbers, np.ndarray) else jnp


def is_open(size: Size) -> bool:
    """Tells whether a size is symbolic."""
    return jax.export.is_symbolic_dim(size)


def tabulate(
    function: Callable[[np.ndarray], np.ndarray], distances: np.ndarray | Array
) -> Int[np.ndarray, " distances"] | Int[Array, " distances"]:
    """Returns a function of distances, computed on the host even if there are openly many.

    Args:
        function: of any distances; beyond some they are all alike to it, on either side.
        distances: from one frame to another.
    """
    if isinstance(distances, np.ndarray):
        return function(distances)
    reach = 1
    while (function(np.array([-reach, reach])) != function(np.array([-_FAR, _FAR]))).any():
        reach *= 2
    table = jnp.asarray(function(np.arange(-reach, reach + 1)))
    return table[jnp.clip(distances, -reach, reach) + reach]
