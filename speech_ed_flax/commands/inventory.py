"""What a set of tensors amounts to: numbers, bytes, dtypes and a digest."""

import hashlib
from collections import Counter
from dataclasses import dataclass

import numpy as np

from speech_ed_flax.conversion.names import SPELLINGS, rename
from speech_ed_flax.types import State


@dataclass(frozen=True)
class Inventory:
    """What a set of tensors amounts to.

    Attributes:
        tensors: number of names.
        parameters: number of numbers; tensors that share their bytes count once.
        bytes: of these numbers.
        dtypes: number of tensors of each.
        sha256: of names, dtypes, shapes and numbers in the order of the names; the same for every
            layout of one checkpoint.
    """

    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]
    sha256: str


def take_inventory(state: State) -> Inventory:
    """Counts and hashes tensors, holding no more than one of them in memory."""
    distinct = {
        (array.__array_interface__["data"][0], array.shape, array.dtype): array
        for array in state.values()
    }.values()
    return Inventory(
        tensors=len(state),
        parameters=sum(array.size for array in distinct),
        bytes=sum(array.nbytes for array in distinct),
        dtypes=dict(sorted(Counter(str(array.dtype) for array in state.values()).items())),
        sha256=_digest(state),
    )


def _digest(state: State) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(rename(state, SPELLINGS).items()):
        digest.update(f"{name}\0{array.dtype}\0{list(array.shape)}\0".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def list_tensors(state: State) -> list[dict[str, object]]:
    """Returns name, shape and dtype of every tensor, layers in the order of their numbers."""
    return [
        {"name": name, "shape": list(state[name].shape), "dtype": str(state[name].dtype)}
        for name in sorted(state, key=_numerically)
    ]


def _numerically(name: str) -> list[tuple[int, str]]:
    """Returns a key that puts layer 10 behind layer 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]
