"""A checkpoint in several files, with an index that says which tensor is in which."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from speech_ed_flax.conversion.blame import blaming
from speech_ed_flax.conversion.json_object import read_json
from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.conversion.safetensors import write_safetensors
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.types import State

__all__ = ["read_shards", "write_sharded"]

_MOST_INDEX = 64 << 20  # bytes
_WHOLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")


def read_shards(index: Path, read: Callable[[Path], State]) -> State:
    """Reads every shard that an index names.

    Args:
        index: ``model.safetensors.index.json`` or ``pytorch_model.bin.index.json``.
        read: the reader of one shard.

    Raises:
        CheckpointError: naming the index or the shard, if the index is damaged, names a file that
            is not in its own folder, or disagrees with the shards about a tensor.
    """
    state: State = {}
    for shard, promised in _promises(index).items():
        with blaming(index):
            path = _inside(index.parent, shard)
        tensors = read(path)
        if repeated := sorted(tensors.keys() & state.keys()):
            raise CheckpointError(f"{path}: tensor {repeated[0]!r}: an earlier shard has it too")
        if missing := sorted(promised - tensors.keys()):
            raise CheckpointError(
                f"{path}: tensor {missing[0]!r}: it is missing here, where {index.name} places it"
            )
        state.update(tensors)
    return state


def _promises(index: Path) -> dict[str, set[str]]:
    """Returns the names of the tensors that an index places in each shard."""
    homes = read_json(index, limit=_MOST_INDEX).get("weight_map")
    promises: dict[str, set[str]] = {}
    with blaming(index):
        if not isinstance(homes, dict) or not homes:
            raise CheckpointError("its weight_map is missing, empty or not an object")
        for name, shard in homes.items():
            if not isinstance(shard, str) or shard in ("", ".", ".."):
                raise CheckpointError(f"tensor {name!r}: its shard is not the name of a file")
            if any(mark in shard for mark in "/\\:\0"):
                raise CheckpointError(f"tensor {name!r}: its shard {shard!r} is not a plain name")
            promises.setdefault(shard, set()).add(name)
    return promises


def _inside(folder: Path, shard: str) -> Path:
    """Returns the path of a shard, unless it is a link that leaves the checkpoint.

    The Hub's cache keeps ``snapshots/<commit>/<name>`` as links into ``blobs/``: these may leave
    the folder, but not the cached repository.
    """
    home = folder.resolve()
    allowed = [home]
    if home.parent.name == "snapshots":
        allowed.append((home.parents[1] / "blobs").resolve())
    target = (folder / shard).resolve()
    if not any(target.is_relative_to(place) for place in allowed):
        raise CheckpointError(f"its shard {shard!r} is a link to a file outside the folder")
    return folder / shard


def write_sharded(folder: Path, tensors: Mapping[str, Any], max_shard_size: int) -> list[Path]:
    """Writes ``model.safetensors``, or shards with an index if that would be too large.

    What an earlier save left under the names that readers look for first is removed once the new
    files are complete; any other file in the folder stays.

    Args:
        folder: is made if it does not exist.
        tensors: numpy or JAX arrays by PyTorch name; their order is the order of the shards.
        max_shard_size: bytes of tensors in one file; a larger tensor has a file to itself.

    Returns:
        The weight files and, last, the index if there is one.

    Raises:
        CheckpointError: naming the file, if it cannot be written or does not read back the same.
    """
    with blaming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        stale = _earlier_shards(folder)
    shards = _split(tensors, max_shard_size)
    if len(shards) == 1:
        paths = [folder / _WHOLE]
        write_safetensors(paths[0], shards[0])
    else:
        paths = _write_shards(folder, shards)
    with blaming(folder):
        for path in {*stale, folder / _WHOLE, folder / _INDEX}.difference(paths):
            path.unlink(missing_ok=True)
    return paths


def _earlier_shards(folder: Path) -> set[Path]:
    """Returns the shards of an earlier save: what its index names, as only a save names files."""
    try:
        shards = _promises(folder / _INDEX)
    except CheckpointError:  # there is no index, or none that anybody could load from
        return set()
    return {folder / shard for shard in shards if _SHARD.fullmatch(shard)}


def _split(tensors: Mapping[str, Any], max_shard_size: int) -> list[dict[str, Any]]:
    """Fills shards in order, each as far as it goes."""
    shards: list[dict[str, Any]] = [{}]
    filled = 0
    for name, array in tensors.items():
        size = _size(array)
        if shards[-1] and filled + size > max_shard_size:
            shards.append({})
            filled = 0
        shards[-1][name] = array
        filled += size
    return shards


def _size(array: Any) -> int:
    return math.prod(array.shape) * np.dtype(array.dtype).itemsize


def _write_shards(folder: Path, shards: list[dict[str, Any]]) -> list[Path]:
    """Writes the shards, then the index that makes them a checkpoint."""
    paths = [
        folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        for number in range(1, len(shards) + 1)
    ]
    index = {
        "metadata": {"total_size": sum(_size(a) for shard in shards for a in shard.values())},
        "weight_map": {
            name: path.name for path, shard in zip(paths, shards, strict=True) for name in shard
        },
    }
    # Shards replace those of an earlier save one by one. Without an index, a crash meanwhile leaves
    # a checkpoint that cannot be read rather than one that mixes old tensors with new ones.
    (folder / _INDEX).unlink(missing_ok=True)
    for path, shard in zip(paths, shards, strict=True):
        write_safetensors(path, shard)
    with blaming(folder / _INDEX), replacing(folder / _INDEX) as temporary:
        temporary.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [*paths, folder / _INDEX]
