"""Where tokens stand, in models that do not count padding, and sinusoids that say it."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.layers.sizes import library_of
from speech_ed_flax.types import Array, Float, Int


def unpadded_positions(
    tokens: Int[Array, "rows target"], positions: Int[Array, "#rows target"], padding: int
) -> Int[Array, "rows target"]:
    """Returns the rows of a position table in which padding takes no position (fairseq's).

    The first position is row ``padding + 1``; padding itself reads row ``padding``, and the tokens
    behind it stand where it would have stood. It is counted within ``tokens`` alone, from the
    first of ``positions`` on, and this is upstream: one call counts over the whole sequence,
    generation over a step and adds the length of what came before. Where the start token is
    padding they disagree, and each is matched.

    Args:
        tokens: the sequence, or a part of it.
        positions: of the tokens, counted from 0 with padding.
        padding: the id of the padding token.
    """
    real = tokens != padding
    steps = jnp.where(real[:, :-1], jnp.diff(positions, axis=1), 0)
    advanced = jnp.pad(jnp.cumsum(steps, axis=1), ((0, 0), (1, 0)))
    return padding + jnp.where(real, positions[:, :1] + advanced + 1, 0)


def fairseq_sinusoids(rows: int, width: int, padding: int) -> Float[np.ndarray, "rows width"]:
    """Returns the table of fairseq and tensor2tensor: sines left, cosines right, float32.

    Wavelengths grow from ``2 pi`` to ``20000 pi`` inclusive. The row of ``padding`` is zero, and so
    is the last column of an odd width.
    """
    table = np.asarray(fairseq_rows(np.arange(rows, dtype=np.float32), width))
    table[padding] = 0
    return table


def fairseq_rows(
    positions: Float[np.ndarray, " rows"] | Float[Array, " rows"], width: int
) -> Float[np.ndarray, "rows width"] | Float[Array, "rows width"]:
    """Returns the rows of ``fairseq_sinusoids``, whose padding is none of them."""
    half, library = width // 2, library_of(positions)
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -np.float32(np.log(1e4) / (half - 1)))
    angles = positions[:, None] * frequencies
    table = library.concatenate([library.sin(angles), library.cos(angles)], axis=1)
    return library.pad(table, ((0, 0), (0, width % 2)))


def transformer_sinusoids(rows: int, width: int) -> Float[np.ndarray, "rows width"]:
    """Returns the table of Marian and Pegasus: sines left, cosines right, float32.

    Wavelengths grow from ``2 pi`` to ``20000 pi`` exclusive, as in Vaswani et al. (2017), where
    sines and cosines alternate. An odd width has one sine more.
    """
    angles = np.arange(rows)[:, None] / 1e4 ** (np.arange(0, width, 2) / width)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return table[:, :width].astype(np.float32)


class StoredSinusoids(nn.Module):
    """Positions that checkpoints hold among their weights, and that no gradient reaches.

    They are read as they are stored, and begin as ``transformer_sinusoids``.
    """

    rows: int
    width: int

    @nn.compact
    def __call__(self, positions: Int[Array, "..."]) -> Float[Array, "... width"]:
        """Returns the rows of ``positions``."""
        table = self.param("sinusoids", self._begin)
        return jax.lax.stop_gradient(table)[positions]

    def _begin(self, key: Any) -> Float[Array, "rows width"]:
        del key
        return jnp.asarray(transformer_sinusoids(self.rows, self.width))


class FairseqSinusoids(nn.Module):
    """Positions that no checkpoint holds: ``fairseq_sinusoids``, with zeros at ``padding``."""

    rows: int
    width: int
    padding: int

    def __call__(self, positions: Int[Array, "..."]) -> Float[Array, "... width"]:
        """Returns the rows of ``positions``."""
        return jnp.asarray(fairseq_sinusoids(self.rows, self.width, self.padding))[positions]
