"""Weights that are kept in fewer bits than they are computed in.

A narrow weight is a node of the parameter tree in the place of the array: what is compiled widens
all of them at its start, outside of any loop, so that a step of decoding converts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Float, Int, Params

LARGEST = 127
"""Magnitude of the largest integer that a weight becomes."""

_QUANTISED = ("weight", "embedding")
"""Leaves that are quantised; what is left (kernels of convolutions, norms, biases) is small."""


@pytree
@dataclass(frozen=True)
class Narrow:
    """An array in fewer bits.

    Attributes:
        values: the numbers as they are kept.
        scale: factor of each row (output channel) of integers; None if values are floats.
        dtype: what they are computed in.
    """

    values: Float[Array, ...] | Int[Array, "outputs inputs"]
    scale: Float[Array, "outputs 1"] | None
    dtype: Any = field(metadata={"static": True})

    def widen(self) -> Float[Array, ...]:
        """Returns the array that is computed with."""
        wide = self.values.astype(self.dtype)
        return wide if self.scale is None else wide * self.scale.astype(self.dtype)


def is_narrow(leaf: Any) -> bool:
    """Tells whether a node of the parameter tree is a narrow array."""
    return isinstance(leaf, Narrow)


def widen(params: Params) -> Params:
    """Returns the parameters that are computed with; traceable."""
    return jax.tree.map(lambda a: a.widen() if is_narrow(a) else a, params, is_leaf=is_narrow)


def quantise(params: Params, weights: str) -> Params:
    """Returns the parameters with the weights of dense layers and embeddings in integers.

    Each row is divided by its largest magnitude over 127 and rounded (weight-only, symmetric, per
    output channel). Activations stay as they are.

    Args:
        params: of floats.
        weights: "int8".

    Raises:
        ConfigError: if ``weights`` is anything else.
    """
    if weights != "int8":
        raise ConfigError(f"weights={weights!r} is not known: use 'int8', or None for floats.")

    def narrow(path: Any, leaf: Any) -> Any:
        return _rows_to_int8(leaf) if path[-1].key in _QUANTISED and leaf.ndim == 2 else leaf

    return jax.tree_util.tree_map_with_path(narrow, params)


def _rows_to_int8(weight: Any) -> Narrow:
    rows = np.asarray(weight, np.float32)
    scale = np.abs(rows).max(1, keepdims=True) / LARGEST
    values = np.rint(rows / np.where(scale > 0, scale, 1)).astype(np.int8)
    return Narrow(jnp.asarray(values), jnp.asarray(scale), jnp.asarray(weight).dtype)


def computable(params: Params) -> Params:
    """Marks bfloat16 parameters to be computed in float32 where the hardware would emulate them.

    Without AVX512-BF16 or AMX, XLA:CPU multiplies bfloat16 at a fraction of float32's speed (a row
    with an output layer: 85 ms instead of 5). Nothing is copied here.
    """
    if jax.default_backend() != "cpu" or _cpu_has_bfloat16():
        return params

    def narrow(leaf: Any) -> Any:
        plain = not is_narrow(leaf) and leaf.dtype == jnp.bfloat16
        return Narrow(leaf, None, jnp.float32) if plain else leaf

    return jax.tree.map(narrow, params, is_leaf=is_narrow)


def computed_dtype(params: Params) -> Any:
    """Returns what is computed in: the dtype of the first parameter, once it is widened."""
    return jax.tree.leaves(params, is_leaf=is_narrow)[0].dtype


@cache
def _cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    try:
        flags = cpuinfo.read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def refuse_integers(params: Params) -> None:
    """Raises ConfigError if a weight is kept in integers, which no checkpoint can hold."""
    for leaf in jax.tree.leaves(params, is_leaf=is_narrow):
        if is_narrow(leaf) and leaf.scale is not None:
            raise ConfigError(
                "the weights are int8, which is for inference: load the checkpoint without "
                "weights='int8' to save or convert it."
            )
