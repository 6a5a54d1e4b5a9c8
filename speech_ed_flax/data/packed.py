"""The folder that ``prepare`` writes: shards of sound, and an index of all rows.

A record of a shard is FLAC, 16 bits, one channel. The index holds everything that batches are
planned from, so that no shard is opened before its sound is wanted.

    index.json      version, rate, shards with their sizes and SHA-256, SHA-256 of rows.npz
    rows.npz        length, shard, record, id, text and language of each row
    sound-00000.array_record ...
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.extras import require

INDEX = "index.json"
ROWS = "rows.npz"
FORMAT, VERSION = "speech_ed_flax.prepared", 1
MODULE = "array_record.python.array_record_module"
_BLOCK = 65_536  # frames encoded at a time


@dataclass(frozen=True)
class Shard:
    """One file of sound."""

    file: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class PackedIndex:
    """All rows of a prepared folder, in order.

    Attributes:
        rate: samples per second.
        shards: files of sound.
        lengths: samples of each row, int64.
        places: shard and record of each row, int32 ``[rows, 2]``.
        ids: names.
        texts: what is said.
        languages: tags, or None.
    """

    rate: int
    shards: tuple[Shard, ...]
    lengths: np.ndarray
    places: np.ndarray
    ids: Sequence[str]
    texts: Sequence[str]
    languages: Sequence[str | None]


def read_index(folder: Path) -> PackedIndex:
    """Reads the index of a prepared folder, and checks that all of its files are there.

    Raises:
        DataError: the folder is of another version, damaged, or incomplete.
    """
    description = _read_description(folder / INDEX)
    try:
        content = (folder / ROWS).read_bytes()
    except OSError as error:
        raise DataError(f"{folder / ROWS}: cannot be read (prepare it again).") from error
    if hashlib.sha256(content).hexdigest() != description["rows_sha256"]:
        raise DataError(f"{folder / ROWS}: is damaged (copy or prepare it again).")
    shards = tuple(Shard(**shard) for shard in description["shards"])
    for shard in shards:
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise DataError(f"{path}: is missing or cut short (copy or prepare it again).")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        texts = {name: _unpacked_texts(arrays, name) for name in ("ids", "texts", "languages")}
        lengths, places = arrays["lengths"].astype(np.int64), arrays["places"].astype(np.int64)
    languages = [language or None for language in texts["languages"]]
    return PackedIndex(
        description["rate"], shards, lengths, places, texts["ids"], texts["texts"], languages
    )


def _read_description(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_text("utf-8"))
        version = description["format"], description["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: is no index of a prepared folder.") from error
    if version != (FORMAT, VERSION):
        raise DataError(
            f"{path}: is of version {version[1]!r} of {version[0]!r}, version {VERSION} of "
            f"{FORMAT!r} is read (prepare it again)."
        )
    return description


def _unpacked_texts(arrays: Any, name: str) -> list[str]:
    content, ends = arrays[name].tobytes(), arrays[f"{name}_ends"].tolist()
    starts = [0, *ends[:-1]]
    return [
        content[start:end].decode("utf-8", "surrogateescape")
        for start, end in zip(starts, ends, strict=False)
    ]


def encode(clip: np.ndarray, rate: int) -> bytes:
    """Returns float32 ``[samples]`` as FLAC of 16 bits; what is beyond +-1 is clipped."""
    pcm = np.clip(np.rint(clip * 32_768.0), -32_768, 32_767).astype(np.int16)
    content = io.BytesIO()
    with soundfile.SoundFile(content, "w", rate, 1, "PCM_16", format="FLAC") as file:
        for start in range(0, len(pcm), _BLOCK):
            file.write(pcm[start : start + _BLOCK])
    return content.getvalue()


def decode(record: bytes) -> np.ndarray:
    """Returns the float32 ``[samples]`` of a record."""
    return soundfile.read(io.BytesIO(record), dtype="float32")[0]


class PackedReader:
    """Reads the sound of a prepared folder; opens each shard when it is first needed."""

    def __init__(self, folder: Path, index: PackedIndex):
        self._files = [str(folder.resolve() / shard.file) for shard in index.shards]
        self._places = index.places
        self._shards: dict[int, Any] = {}

    def read(self, row: int) -> np.ndarray:
        """Returns float32 ``[samples]``.

        Raises:
            DataError: the record cannot be read.
        """
        shard, record = self._places[row].tolist()
        try:
            return decode(self._open(shard).read([record])[0])
        except (soundfile.LibsndfileError, RuntimeError, ValueError, IndexError) as error:
            raise DataError(
                f"{self._files[shard]}: record {record} cannot be read (copy or prepare it again)."
            ) from error

    def _open(self, shard: int) -> Any:
        if shard not in self._shards:
            module: Any = require(MODULE, "train")
            self._shards[shard] = module.ArrayRecordReader(
                self._files[shard], "readahead_buffer_size:0,max_parallelism:0"
            )
        return self._shards[shard]

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out open files."""
        return self.__dict__ | {"_shards": {}}
