"""The zip container of ``torch.save`` (since 1.6): stored entries, found but not copied."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np

from speech_ed_flax.errors import CheckpointError

__all__ = ["read_entries"]

_MOST_DIRECTORY = 8 << 20  # bytes of the central directory: 80,000 entries, 128 MB once parsed
_LOCAL_HEADER = struct.Struct("<4s22x2H")  # signature, ..., lengths of the name and the extra field
_ENCRYPTED = 0x1


class _BoundedFile(io.FileIO):
    """A file that refuses to hand zipfile a central directory of any size it declares."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MOST_DIRECTORY:
            raise CheckpointError(f"its zip directory is larger than {_MOST_DIRECTORY} bytes")
        return super().read(size)


def read_entries(path: Path, contents: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the bytes of every entry of a zip file, by name.

    Checksums are not verified: that would read a file which is mapped so as not to be read.

    Args:
        path: the file.
        contents: the same file mapped, uint8 ``[size]``; the results are views of it.

    Raises:
        CheckpointError: if an entry is compressed (it could be a bomb; torch stores), encrypted,
            named twice, named like a path out of the archive, or not inside the file.
    """
    try:
        with _BoundedFile(path) as file, zipfile.ZipFile(file) as archive:
            listed = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise CheckpointError(f"its zip directory is damaged or cut short ({error})") from error
    entries: dict[str, np.ndarray] = {}
    for info in listed:
        _check(info)
        if info.filename in entries:
            raise CheckpointError(f"its zip entry {info.filename!r} appears twice")
        entries[info.filename] = _extent(info, contents)
    return entries


def _check(info: zipfile.ZipInfo) -> None:
    """Refuses what torch never writes."""
    name = info.orig_filename
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        raise CheckpointError(f"its zip entry {name!r} is named like a path out of the archive")
    if info.flag_bits & _ENCRYPTED:
        raise CheckpointError(f"its zip entry {name!r} is encrypted")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise CheckpointError(f"its zip entry {name!r} is compressed; torch stores: save it again")


def _extent(info: zipfile.ZipInfo, contents: np.ndarray) -> np.ndarray:
    """Returns the view of one entry's bytes; only its local header says where they begin."""
    header = info.header_offset
    if not 0 <= header <= contents.size - _LOCAL_HEADER.size:
        raise CheckpointError(f"its zip entry {info.filename!r} lies outside the file")
    signature, name, extra = _LOCAL_HEADER.unpack_from(contents.data, header)
    start = header + _LOCAL_HEADER.size + name + extra
    if signature != b"PK\x03\x04" or start + info.file_size > contents.size:
        raise CheckpointError(f"its zip entry {info.filename!r} lies outside the file")
    return contents[start : start + info.file_size]
