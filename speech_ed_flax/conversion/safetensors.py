"""Reads and writes ``.safetensors`` files, one tensor in memory at a time."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from speech_ed_flax.conversion.blame import blaming
from speech_ed_flax.conversion.contents import map_contents, recognise
from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.types import State

__all__ = ["read_safetensors", "write_safetensors"]

_MOST_HEADER = 16 << 20  # bytes; 100,000 tensors need about 12 MB

_DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype("<u1"),
    "I8": np.dtype("<i1"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: Path) -> State:
    """Reads a safetensors file.

    Returns:
        Arrays by name: read-only views of the mapped file, which stays open as long as one of them
        lives. bfloat16 is ml_dtypes'.

    Raises:
        CheckpointError: naming the file, and the tensor where there is one, if the file is damaged,
            is something else, or has a dtype that numpy cannot hold (float8 and smaller).
    """
    with blaming(path):
        contents = map_contents(path)
        header, start = _header(path, contents)
        state: State = {}
        for name, entry in header.items():
            with blaming(f"tensor {name[:200]!r}"):
                if entry["dtype"] not in _DTYPES:
                    raise CheckpointError(
                        f"its dtype {entry['dtype']} is not supported; convert it to one of"
                        f" {', '.join(_DTYPES)}"
                    )
                dtype, offset = _DTYPES[entry["dtype"]], start + entry["data_offsets"][0]
                state[name] = np.ndarray(tuple(entry["shape"]), dtype, contents, offset)
        return state


def _header(path: Path, contents: np.ndarray) -> tuple[dict[str, Any], int]:
    """Returns the entry of every tensor and the position where their bytes begin."""
    length = int.from_bytes(contents[:8].tobytes(), "little")
    if contents.size < 8 or length > contents.size - 8:
        raise CheckpointError(recognise(contents))
    if length > _MOST_HEADER:
        raise CheckpointError(f"its header of {length} bytes is larger than {_MOST_HEADER} bytes")
    try:
        # The library checks that offsets are in order, cover the file and fit the shapes.
        with safe_open(path, framework="np"):
            pass
    except SafetensorError as error:
        if contents[8:9].tobytes() != b"{":
            raise CheckpointError(f"{recognise(contents)} ({error})") from error
        suspect = _suspect(contents[8 : 8 + length].tobytes(), contents.size - 8 - length)
        reason = f"{suspect}it is damaged or cut short: download or save it again ({error})"
        raise CheckpointError(reason) from error
    header = json.loads(contents[8 : 8 + length].tobytes(), object_pairs_hook=_once)
    header.pop("__metadata__", None)
    return header, 8 + length


def _suspect(header: bytes, room: int) -> str:
    """Names the first tensor that does not fit its bytes; the library often does not say."""
    try:
        entries = json.loads(header)
    except (ValueError, RecursionError):
        return ""
    entries.pop("__metadata__", None)
    return next(
        (f"tensor {name[:200]!r}: " for name in entries if not _fits(entries[name], room)), ""
    )


def _fits(entry: Any, room: int) -> bool:
    try:
        size, (begin, end) = _DTYPES[entry["dtype"]].itemsize, entry["data_offsets"]
        counts = [begin, end, *entry["shape"][:64]]
        if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
            return False
        return end <= room and math.prod(counts[2:]) * size == end - begin
    except (LookupError, TypeError, ValueError):
        return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of the header; the library and JSON would let the last of two names win."""
    names = dict(pairs)
    if len(names) != len(pairs):
        ((repeated, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise CheckpointError(f"tensor {repeated[:200]!r}: its name is given twice")
    return names


def write_safetensors(
    path: Path,
    tensors: Mapping[str, Any] | Iterable[tuple[str, Any]],
    metadata: Mapping[str, str] = {"format": "pt"},
) -> None:
    """Writes a safetensors file, which appears under its name only once it reads back the same.

    ``safetensors.numpy.save_file`` 0.8.0 writes wrong bytes for arrays that are not C-contiguous
    (and conversion transposes everything), and needs all tensors in memory at once. Here they are
    made contiguous and written one after the other.

    Args:
        path: the file; one of that name is replaced.
        tensors: numpy or JAX arrays by name, of any strides and any dtype that can be read back.
        metadata: strings for the file's header; transformers insists on ``format``.

    Raises:
        CheckpointError: naming the file and the tensor, if a name is given twice, a dtype cannot be
            written, the disk is full, or the file does not read back the same. What was at ``path``
            is then untouched.
    """
    named = tensors.items() if isinstance(tensors, Mapping) else tensors
    pairs = list(cast("Iterable[tuple[str, Any]]", named))
    # Widest dtypes first, so that every tensor begins at a multiple of its own item size.
    pairs.sort(key=lambda pair: (-np.dtype(pair[1].dtype).itemsize, pair[0]))
    with blaming(path), replacing(path) as temporary:
        header = _encode_header(pairs, metadata)
        with open(temporary, "xb") as file:
            file.write(header)
            for _, array in pairs:
                file.write(_bytes(array))
        _compare(temporary, pairs)


def _encode_header(pairs: list[tuple[str, Any]], metadata: Mapping[str, str]) -> bytes:
    """Returns the length and the JSON of the header, padded so that data is aligned to 8 bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    start = 0
    for name, array in pairs:
        dtype = np.dtype(array.dtype).newbyteorder("<")
        with blaming(f"tensor {name!r}"):
            if name in header:
                raise CheckpointError("its name is given twice or reserved by the format")
            if dtype not in _NAMES:
                raise CheckpointError(f"its dtype {dtype} cannot be written")
        end = start + math.prod(array.shape) * dtype.itemsize
        entry = {"dtype": _NAMES[dtype], "shape": array.shape, "data_offsets": (start, end)}
        header[name] = entry
        start = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded


def _bytes(array: Any) -> memoryview:
    """Returns the little-endian C-ordered bytes of an array, copied only if they must be."""
    values = np.asarray(array)
    values = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    return values.reshape(-1).view(np.uint8).data


def _compare(path: Path, pairs: list[tuple[str, Any]]) -> None:
    """Raises CheckpointError unless the file holds exactly these tensors, bit for bit."""
    written = read_safetensors(path)
    for name, array in pairs:
        again = written[name]
        if again.shape != array.shape or _bytes(again) != _bytes(array):
            raise CheckpointError(f"tensor {name!r}: it does not read back as it was written")
