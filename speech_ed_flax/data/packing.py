"""Writes the folder that ``packed`` reads."""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from speech_ed_flax.data.extras import require
from speech_ed_flax.data.packed import FORMAT, INDEX, MODULE, ROWS, VERSION, PackedIndex, Shard

_SHARD_BYTES = 2**28


class Packer:
    """Takes rows one after another; as a context manager it writes the index at the end.

    Attributes:
        rows: taken so far.
    """

    def __init__(self, folder: Path, rate: int, shard_bytes: int = _SHARD_BYTES):
        """Prepares to write.

        Args:
            folder: an empty one.
            rate: samples per second.
            shard_bytes: after so many bytes of sound a new file is begun.

        Raises:
            ConfigError: ``array_record`` is not installed.
        """
        self._module: Any = require(MODULE, "train")
        self._folder, self._rate, self._shard_bytes = folder, rate, shard_bytes
        self._writer: Any = None
        self._open_bytes = self._open_rows = 0
        self._shards: list[Shard] = []
        self._ids: list[str] = []
        self._texts: list[str] = []
        self._languages: list[str | None] = []
        self._lengths: list[int] = []
        self._places: list[tuple[int, int]] = []

    @property
    def rows(self) -> int:
        """Rows taken so far."""
        return len(self._ids)

    @property
    def seconds(self) -> float:
        """Seconds of sound in them."""
        return sum(self._lengths) / self._rate

    def add(self, name: str, text: str, language: str | None, samples: int, record: bytes) -> None:
        """Takes a row, whose record is FLAC of so many samples."""
        if self._writer is None or self._open_bytes >= self._shard_bytes:
            self._finish_shard()
            # Each record can be read alone; FLAC is compressed already.
            path = str(self._folder / self._file())
            self._writer = self._module.ArrayRecordWriter(path, "group_size:1,uncompressed")
        self._writer.write(record)
        self._places.append((len(self._shards), self._open_rows))
        self._open_rows += 1
        self._open_bytes += len(record)
        self._ids.append(name)
        self._texts.append(text)
        self._languages.append(language)
        self._lengths.append(samples)

    def _file(self) -> str:
        return f"sound-{len(self._shards):05}.array_record"

    def _finish_shard(self) -> None:
        if self._writer is None:
            return
        self._writer.close()
        path = self._folder / self._file()
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._shards.append(Shard(path.name, self._open_rows, path.stat().st_size, digest))
        self._writer, self._open_bytes, self._open_rows = None, 0, 0

    def __enter__(self) -> "Packer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._finish_shard()
        if error is None:
            places = np.array(self._places, np.int64).reshape(-1, 2)
            lengths = np.array(self._lengths, np.int64)
            columns = (self._ids, self._texts, self._languages)
            index = PackedIndex(self._rate, tuple(self._shards), lengths, places, *columns)
            _write_index(self._folder, index)


def _write_index(folder: Path, index: PackedIndex) -> None:
    """Writes the index of a folder whose shards are written."""
    rows = io.BytesIO()
    arrays: dict[str, Any] = {
        "lengths": index.lengths.astype("<i8"),
        "places": index.places.astype("<i4"),
    }
    languages = [language or "" for language in index.languages]
    for name, texts in (("ids", index.ids), ("texts", index.texts), ("languages", languages)):
        arrays |= _packed_texts(name, texts)
    np.savez(rows, **arrays)
    content = rows.getvalue()
    (folder / ROWS).write_bytes(content)
    description = {
        "format": FORMAT,
        "version": VERSION,
        "rate": index.rate,
        "rows": len(index.ids),
        "seconds": round(float(index.lengths.sum()) / index.rate, 3),
        "rows_sha256": hashlib.sha256(content).hexdigest(),
        "shards": [asdict(shard) for shard in index.shards],
    }
    (folder / INDEX).write_text(json.dumps(description, indent=2) + "\n", "utf-8")


def _packed_texts(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns texts as bytes and where each ends: unlike objects, they need no pickle."""
    # A path that is not UTF-8 may be an id.
    encoded = [text.encode("utf-8", "surrogateescape") for text in texts]
    ends = np.cumsum([len(text) for text in encoded], dtype="<i8")
    return {name: np.frombuffer(b"".join(encoded), np.uint8), f"{name}_ends": ends}
