"""Shards as webdataset has them: tar archives whose files are named after their samples.

``a/b.wav``, ``a/b.txt`` and ``a/b.json`` are one sample; what follows the first dot of a name says
what a file is. Nothing is unpacked to the disk.
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.rows import Fault, Row, column, read_row
from speech_ed_flax.data.span import Span

SUFFIXES = (".tar", ".tar.gz", ".tgz")

_SOUND = ("wav", "flac", "ogg", "opus", "mp3", "oga", "aiff", "aif", "au", "sph")
_TEXTS = ("txt", "text", "transcript")


def scan_tar(path: Path, needs_text: bool = True) -> Iterator[Row | Fault]:
    """Yields the samples of an archive, in order.

    Sound of an archive that is not compressed is a ``Span`` of it, and read when it is wanted.

    Args:
        path: of the archive.
        needs_text: whether samples without text are faults.

    Raises:
        DataError: it is no tar archive, or is damaged.
    """
    try:
        with tarfile.open(path) as archive:
            members = (member for member in archive if member.isfile())
            for number, (name, group) in enumerate(groupby(members, _key), 1):
                files = {_extension(member): member for member in group}
                yield _sample(archive, files, name, str(path), number, needs_text)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{path}: is no readable tar archive, {error} (fetch it again).") from error


def _split(member: tarfile.TarInfo) -> tuple[str, str]:
    folder, slash, file = member.name.rpartition("/")
    stem, _, extension = file.partition(".")
    return folder + slash + stem, extension.lower()


def _key(member: tarfile.TarInfo) -> str:
    return _split(member)[0]


def _extension(member: tarfile.TarInfo) -> str:
    return _split(member)[1]


def _sample(
    archive: tarfile.TarFile,
    files: dict[str, tarfile.TarInfo],
    name: str,
    path: str,
    number: int,
    needs_text: bool,
) -> Row | Fault:
    sound = next((files[kind] for kind in _SOUND if kind in files), None)
    if sound is None:
        return Fault(path, number, f"no sound, but {', '.join(sorted(files))}", name)
    columns: dict[str, Any] = {}
    if "json" in files:
        read = _object(_content(archive, files["json"]))
        if read is None:
            return Fault(path, number, f"{files['json'].name} is not a JSON object", name)
        columns |= read
    text = next((files[kind] for kind in _TEXTS if kind in files), None)
    if text is not None and column(columns, "text") is None:
        columns["text"] = _content(archive, text).decode("utf-8", "surrogateescape")
    if archive.fileobj is not None and path.endswith(".tar"):
        place = Span(path, sound.offset_data, sound.size, f"{path}:{sound.name}")
        return read_row(columns, place, name, path, number, needs_text)
    return read_row(columns, _content(archive, sound), name, path, number, needs_text)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    return b"" if file is None else file.read()


def _object(content: bytes) -> Mapping[str, Any] | None:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
