"""Tables of token ids, made on the host and read inside a compiled function."""

from collections.abc import Iterable

import numpy as np

from speech_ed_flax.types import Bool


def token_mask(tokens: Iterable[int], vocab: int) -> Bool[np.ndarray, " vocab"]:
    """Returns a mask that is True at ``tokens``; ids beyond the vocabulary are ignored."""
    return np.isin(np.arange(vocab), list(tokens))


def padded(rows: np.ndarray, fill: int | float) -> np.ndarray:
    """Returns ``rows`` with rows of ``fill`` added up to a power of two.

    Another list of about the same size then has the same shape and compiles nothing anew.
    """
    added = power_of_two(len(rows)) - len(rows)
    return np.pad(rows, ((0, added), *[(0, 0)] * (rows.ndim - 1)), constant_values=fill)


def power_of_two(size: int) -> int:
    """Returns the smallest power of two that is not below ``size``, which is at least 1."""
    return 1 << (size - 1).bit_length()
