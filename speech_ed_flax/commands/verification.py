"""Whether a checkpoint that was written holds, bit for bit, the parameters that were meant."""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict

from speech_ed_flax.commands.outcome import VerificationError
from speech_ed_flax.conversion.load import load
from speech_ed_flax.errors import SpeechError
from speech_ed_flax.types import Array, Params


def compare(folder: Path, params: Params) -> tuple[int, int]:
    """Loads a checkpoint anew and compares each parameter: paths, shapes, dtypes and bits.

    Args:
        folder: the checkpoint.
        params: what it is to hold.

    Returns:
        The number of parameters' tensors that were compared, and their bytes.

    Raises:
        VerificationError: naming the first parameter that differs, or why nothing can be loaded.
    """
    try:
        found: dict[str, Any] = flatten_dict(load(folder, dtype=None).params, sep="/")
    except SpeechError as error:
        raise VerificationError(f"what was written cannot be loaded: {error}") from error
    meant: dict[str, Any] = flatten_dict(params, sep="/")
    if odd := sorted(found.keys() ^ meant.keys()):
        raise VerificationError(f"{odd[0]}: it is only in one of the model and what was written.")
    for path, array in meant.items():
        if _kind(found[path]) != _kind(array):
            raise VerificationError(
                f"{path}: {_kind(array)} was written, {_kind(found[path])} was read back."
            )
        if not np.array_equal(_bits(found[path]), _bits(array)):
            raise VerificationError(f"{path}: it does not read back bit for bit the same.")
    return len(meant), sum(array.nbytes for array in meant.values())


def _kind(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _bits(array: Array) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)
