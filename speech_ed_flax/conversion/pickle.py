"""Reads ``pytorch_model.bin`` without torch: nothing is executed, nothing is copied.

``torch.save`` writes a pickle of names, shapes and strides, and beside it the bytes of each
storage: since 1.6 as entries of a zip file, before that behind the pickle in one stream.
"""

import math
from io import BytesIO
from pathlib import Path

import numpy as np

from speech_ed_flax.conversion.archive import read_entries
from speech_ed_flax.conversion.blame import blaming
from speech_ed_flax.conversion.contents import map_contents, recognise
from speech_ed_flax.conversion.declarations import Tensor
from speech_ed_flax.conversion.opcodes import LIMIT, load
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.types import State

__all__ = ["read_pickle"]

_STREAM_MAGIC = 0x1950A86A20F9469CFC6C
_STREAM_VERSION = 1001
_MOST_AXES = 64  # as many as numpy can hold


def read_pickle(path: Path) -> State:
    """Reads the state dict in a file that ``torch.save`` wrote.

    Args:
        path: a zip file, or a stream as torch wrote before 1.6.

    Returns:
        Arrays by PyTorch name: read-only views of the mapped file, which stays open as long as one
        of them lives. Parameters that share a storage share it here. bfloat16 is ml_dtypes'.

    Raises:
        CheckpointError: naming the file, and the tensor where there is one, if it is damaged, is
            no plain dict of tensors, or refers to anything but tensors.
    """
    with blaming(path):
        contents = map_contents(path)
        if contents[:4].tobytes() == b"PK\x03\x04":
            tree, storages = _read_archive(path, contents)
        elif contents[0] == 0x80:
            tree, storages = _read_stream(contents)
        else:
            raise CheckpointError(recognise(contents))
        return _state(tree, storages)


def _read_archive(path: Path, contents: np.ndarray) -> tuple[object, dict[str, np.ndarray]]:
    """Returns the unpickled tree and the bytes of each storage, from a zip file."""
    entries = read_entries(path, contents)
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise CheckpointError(f"it has {len(roots)} entries named data.pkl; torch.save writes one")
    (root,) = roots
    if f"{root}byteorder" in entries and entries[f"{root}byteorder"].tobytes() != b"little":
        raise CheckpointError("its byteorder is not little-endian: save it on another machine")
    pickled = entries[f"{root}data.pkl"]
    if pickled.size > LIMIT:
        raise CheckpointError(f"its pickle is larger than {LIMIT} bytes: tensors belong beside it")
    tree, _ = load(BytesIO(pickled.tobytes()))
    folder = f"{root}data/"
    return tree, {
        name.removeprefix(folder): data for name, data in entries.items() if name.startswith(folder)
    }


def _read_stream(contents: np.ndarray) -> tuple[object, dict[str, np.ndarray]]:
    """Returns the unpickled tree and the bytes of each storage, from a stream of five pickles.

    They are a magic number, a version, facts about the machine, the tree, and the keys of the
    storages. The storages follow in the order of the keys, each behind its number of elements.
    """
    stream = BytesIO(contents[:LIMIT].tobytes())
    if load(stream)[0] != _STREAM_MAGIC or load(stream)[0] != _STREAM_VERSION:
        raise CheckpointError("it is a pickle, but not one that torch.save wrote")
    facts, _ = load(stream)
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise CheckpointError("its byteorder is not little-endian: save it on another machine")
    tree, declared = load(stream)
    keys, _ = load(stream)
    if not isinstance(keys, list) or sorted(keys) != sorted(declared):
        raise CheckpointError("its list of storages is not that of the storages it refers to")
    storages, position = {}, stream.tell()
    for key in keys:
        elements = int.from_bytes(contents[position : position + 8].tobytes(), "little")
        size = declared[key].elements * declared[key].dtype.itemsize
        position += 8
        if elements != declared[key].elements or position + size > contents.size:
            raise CheckpointError(f"its storage {key[:80]!r} is cut short or of another size")
        storages[key] = contents[position : position + size]
        position += size
    return tree, storages


def _state(tree: object, storages: dict[str, np.ndarray]) -> State:
    """Turns the tree into arrays, if it is a flat dict of tensors."""
    if not isinstance(tree, dict):
        raise CheckpointError(f"it holds a {_kind(tree)}: a plain state dict is needed")
    state: State = {}
    for name, value in tree.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise CheckpointError(
                f"its entry {name!r:.200} is a {_kind(value)}, not a tensor: a plain state dict is"
                " needed, such as torch.save(model.state_dict(), ...) writes"
            )
        with blaming(f"tensor {name[:200]!r}"):
            state[name] = _view(value, storages)
    return state


def _kind(value: object) -> str:
    """Returns words for a value that should have been something else."""
    if isinstance(value, dict):
        some = ", ".join(repr(key)[:40] for key in list(value)[:5])
        return f"dict with the keys {some}" if some else "empty dict"
    return type(value).__name__.lower()


def _view(tensor: Tensor, storages: dict[str, np.ndarray]) -> np.ndarray:
    """Lays a tensor over the bytes of its storage; nothing is allocated.

    Raises:
        CheckpointError: if any element would lie outside, or if an expanded view (stride 0) would
            grow beyond its storage once somebody copies it.
    """
    storage = tensor.storage
    shape, strides = _counts(tensor.shape), _counts(tensor.strides)
    (offset,) = _counts((tensor.offset,))
    if len(shape) != len(strides):
        raise CheckpointError(f"it has {len(shape)} axes but {len(strides)} strides")
    data = storages.get(storage.key)
    if data is None:
        raise CheckpointError(f"its storage {storage.key[:80]!r} is missing from the file")
    size = storage.dtype.itemsize
    if storage.elements * size > data.size:
        raise CheckpointError(
            f"its storage {storage.key[:80]!r} declares {storage.elements} elements of"
            f" {storage.dtype} but has {data.size} bytes"
        )
    reach = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) + 1
    reach = offset + (reach if 0 not in shape else 0)
    if max(reach, math.prod(shape)) > storage.elements:
        raise CheckpointError(
            f"it reaches outside its storage: shape {shape}, strides {strides} and offset"
            f" {offset} in {storage.elements} elements"
        )
    steps = tuple(stride * size for stride in strides)
    return np.ndarray(shape, storage.dtype, data, offset * size, steps)


def _counts(values: object) -> tuple[int, ...]:
    """Returns the numbers of a shape, strides or offset, if they are counts that can be right."""
    if not isinstance(values, tuple) or len(values) > _MOST_AXES:
        raise CheckpointError("its shape or strides are not a tuple of at most 64 numbers")
    if not all(type(value) is int and 0 <= value < 1 << 63 for value in values):
        raise CheckpointError("its shape, strides or offset has a negative or impossible number")
    return values
