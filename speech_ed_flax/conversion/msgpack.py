"""Reads and writes ``flax_model.msgpack``, the weights of a Flax model of transformers 4.x.

Its tree has the PyTorch names split at the dots, other names for some leaves, and kernels with all
axes reversed. Weight norm has the older PyTorch spelling, ``weight_g`` and ``weight_v``.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

from speech_ed_flax.conversion.blame import blaming
from speech_ed_flax.conversion.contents import map_contents, recognise
from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.types import State

__all__ = ["read_msgpack", "write_msgpack"]

_WEIGHTS = ("kernel", "scale", "embedding")
_WEIGHT_NORM = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}


def read_msgpack(path: Path) -> State:
    """Reads a Flax checkpoint of transformers 4.x as a PyTorch state dict.

    The whole file is read into memory, as the format has no index.

    Returns:
        Arrays by PyTorch name, read-only; kernels are reversed views, nothing is copied twice.

    Raises:
        CheckpointError: naming the file, and the tensor where there is one, if it is damaged or
            holds something other than arrays.
    """
    with blaming(path):
        contents = map_contents(path)
        try:
            tree = msgpack_restore(cast("bytes", contents.data))  # it takes any buffer
        except Exception as error:  # flax and msgpack raise whatever the damage happens to cause
            raise CheckpointError(f"{recognise(contents)} ({str(error)[:200]})") from error
        if not isinstance(tree, dict):
            raise CheckpointError(recognise(contents))
        state: State = {}
        for parts, array in _leaves(tree, ()):
            name = ".".join([*parts[:-1], "weight" if parts[-1] in _WEIGHTS else parts[-1]])
            with blaming(f"tensor {name[:200]!r}"):
                if not isinstance(array, np.ndarray):
                    raise CheckpointError(f"it is a {type(array).__name__}, not an array")
                if name in state:
                    raise CheckpointError("two leaves of the tree have this name")
                state[name] = array.T if parts[-1] == "kernel" else array
        return state


def _leaves(
    tree: Mapping[Any, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yields the path and the value of every leaf of a tree."""
    for part, value in tree.items():
        if not isinstance(part, str):
            raise CheckpointError(f"its tree has a {type(part).__name__} as the name of a branch")
        if isinstance(value, dict):
            yield from _leaves(value, (*above, part))
        else:
            yield (*above, part), value


def write_msgpack(path: Path, tensors: Mapping[str, Any], embeddings: Collection[str]) -> None:
    """Writes a PyTorch state dict as a Flax checkpoint that transformers 4.x reads.

    The whole file is made in memory. It appears under its name only once it reads back the same.

    Args:
        path: the file; one of that name is replaced.
        tensors: numpy or JAX arrays by PyTorch name.
        embeddings: the names among them whose ``weight`` is the table of an embedding.

    Raises:
        CheckpointError: naming the file and the tensor, if a name is both a tensor and a module,
            the disk is full, or the file does not read back the same. What was at ``path`` is then
            untouched.
    """
    with blaming(path), replacing(path) as temporary:
        written: State = {}
        tree: dict[str, Any] = {}
        for name, tensor in tensors.items():
            array = np.asarray(tensor)
            legacy = _legacy(name)
            leaf = _leaf(name, array, embeddings)
            _plant(tree, [*legacy.split(".")[:-1], leaf], array.T if leaf == "kernel" else array)
            written[legacy] = array
        temporary.write_bytes(msgpack_serialize(tree))
        _compare(read_msgpack(temporary), written)


def _legacy(name: str) -> str:
    """Spells the two halves of a weight norm as they were before PyTorch's parametrizations."""
    for ending, leaf in _WEIGHT_NORM.items():
        if name.endswith(f".{ending}"):
            return name.removesuffix(ending) + leaf
    return name


def _leaf(name: str, array: np.ndarray, embeddings: Collection[str]) -> str:
    """Returns what Flax calls the last part of a name."""
    last = _legacy(name).rpartition(".")[2]
    if last != "weight":
        return last
    if name in embeddings:
        return "embedding"
    return "scale" if array.ndim == 1 else "kernel"


def _plant(tree: dict[str, Any], parts: list[str], array: np.ndarray) -> None:
    """Puts a leaf into the tree at its path."""
    branch: Any = tree
    for part in parts[:-1]:
        branch = branch.setdefault(part, {}) if isinstance(branch, dict) else None
    if not isinstance(branch, dict) or parts[-1] in branch:
        raise CheckpointError(f"tensor {'.'.join(parts)!r}: another tensor is in its place")
    branch[parts[-1]] = array


def _compare(again: State, written: State) -> None:
    """Raises CheckpointError unless both hold the same tensors, bit for bit."""
    for name, array in written.items():
        same = name in again and again[name].dtype == array.dtype
        if not same or again[name].shape != array.shape or _bits(again[name]) != _bits(array):
            raise CheckpointError(f"tensor {name!r}: it does not read back as it was written")


def _bits(array: np.ndarray) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
