"""Rows that a training can hear: a prepared folder or a plain manifest, as the same thing."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from speech_ed_flax.data.clips import ClipReader, check_length, measure
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.manifest import read_manifest
from speech_ed_flax.data.packed import INDEX, PackedReader, read_index
from speech_ed_flax.data.rows import Row
from speech_ed_flax.data.speed import fit


@runtime_checkable
class Reader(Protocol):
    """Reads the sound of rows by their number; can be pickled, and opens files when first asked."""

    def read(self, row: int) -> np.ndarray:
        """Returns float32 ``[samples]``."""
        ...


@dataclass(frozen=True)
class Store:
    """Rows by number: what is said in each, how long it is, and its sound.

    Attributes:
        ids: name of each row.
        texts: what is said.
        languages: a tag such as ``en``, or None.
        lengths: samples of each row, int64 ``[rows]``.
        rate: samples per second.
        reader: of the sound.
        name: of the file or folder.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    languages: Sequence[str | None]
    lengths: np.ndarray
    rate: int
    reader: Reader
    name: str = ""

    @classmethod
    def open(
        cls, path: str | Path, rate: int = 16_000, audio_root: str | Path | None = None
    ) -> "Store":
        """Opens what ``prepare`` wrote, or a manifest.

        Rows of a manifest that say no duration are measured, which reads the head of every file.

        Args:
            path: prepared folder, or a manifest.
            rate: at which sound is wanted, Hz.
            audio_root: folder that paths of a manifest are relative to; its own if omitted.

        Raises:
            DataError: it is neither, has a faulty row, or was prepared at another rate.
            AudioError: a file cannot be measured.
        """
        path = Path(path)
        if path.is_dir():
            return _open_folder(path, rate)
        manifest = read_manifest(path, audio_root)
        if manifest.faults:
            raise DataError(
                f"{manifest.faults[0]}; {len(manifest.faults)} of its rows are faulty (correct "
                "them, or run speech-ed-flax prepare, which lists them and leaves them out)."
            )
        rows = manifest.rows
        return cls(
            [row.id for row in rows],
            [row.text for row in rows],
            [row.language for row in rows],
            np.array([measure(row, rate) for row in rows], np.int64),
            rate,
            ManifestReader(rows, rate),
            str(path),
        )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def durations(self) -> np.ndarray:
        """Seconds of each row, float64 ``[rows]``."""
        return self.lengths / self.rate

    def samples(self, row: int) -> np.ndarray:
        """Returns the sound of a row, float32 ``[lengths[row]]``.

        Raises:
            AudioError: it cannot be decoded.
            DataError: it is not as long as it was when it was measured.
        """
        clip, length = self.reader.read(row), int(self.lengths[row])
        check_length(clip, length, self.rate, self.ids[row])
        return fit(clip, length)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ids, texts, languages and lengths, in order."""
        lines = [
            f"{identifier}\t{text}\t{language}\t{length}"
            for identifier, text, language, length in zip(
                self.ids, self.texts, self.languages, self.lengths.tolist(), strict=True
            )
        ]
        content = "\n".join([str(self.rate), *lines])
        return hashlib.sha256(content.encode("utf-8", "surrogateescape")).hexdigest()


class ManifestReader:
    """Reads the files that a manifest names."""

    def __init__(self, rows: Sequence[Row], rate: int):
        # They travel to every worker: without what is not sound.
        self._rows = [replace(row, text="", columns={}) for row in rows]
        self._clips = ClipReader(rate)

    def read(self, row: int) -> np.ndarray:
        """Returns float32 ``[samples]``."""
        return self._clips.read(self._rows[row])


def _open_folder(path: Path, rate: int) -> Store:
    if not (path / INDEX).is_file():
        raise DataError(
            f"{path}: holds no {INDEX} (name a manifest, or run speech-ed-flax prepare first)."
        )
    index = read_index(path)
    if index.rate != rate:
        raise DataError(
            f"{path}: was prepared at {index.rate} Hz, {rate} Hz are wanted (prepare it again with "
            f"--rate {rate})."
        )
    return Store(
        index.ids,
        index.texts,
        index.languages,
        index.lengths,
        index.rate,
        PackedReader(path, index),
        str(path),
    )
