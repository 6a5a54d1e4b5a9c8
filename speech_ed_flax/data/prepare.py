"""Decodes, checks and measures every row once, before any training, and packs what is sound."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from speech_ed_flax.data.clips import ClipReader
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.packed import encode
from speech_ed_flax.data.packing import Packer
from speech_ed_flax.data.rows import Fault, Row
from speech_ed_flax.data.worker import map_in_order
from speech_ed_flax.errors import SpeechError

CASES: dict[str, Callable[[str], str]] = {"as-is": str, "lower": str.lower, "upper": str.upper}
"""What may become of the letters of texts."""

_CHUNK = 16  # rows that go to a worker at once: rows of one recording are decoded together


@dataclass(frozen=True)
class Checks:
    """What rows have to be, and what they become.

    Attributes:
        rate: samples per second that sound is resampled to.
        min_seconds: shorter rows are rejected.
        max_seconds: longer rows are rejected.
        case: of the texts; one of ``CASES``.
    """

    rate: int = 16_000
    min_seconds: float = 0.1
    max_seconds: float = 30.0
    case: str = "as-is"


@dataclass(frozen=True)
class Checked:
    """A row that is sound: with its text as it is stored, its samples, and its record."""

    row: Row
    samples: int
    record: bytes


@dataclass(frozen=True)
class Summary:
    """What became of all rows.

    Attributes:
        rows: that were packed.
        seconds: of sound in them.
        faults: the others.
    """

    rows: int
    seconds: float
    faults: tuple[Fault, ...]

    @property
    def bad_fraction(self) -> float:
        """The share of rows that were rejected."""
        return len(self.faults) / max(1, self.rows + len(self.faults))


def prepare(
    entries: Iterable[Row | Fault],
    folder: Path,
    checks: Checks,
    workers: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> Summary:
    """Packs rows into an empty folder.

    Args:
        entries: rows, and faults found while they were read.
        folder: to write to.
        checks: what rows have to be.
        workers: processes that decode; with 0 this one does.
        progress: called after each row.

    Raises:
        ConfigError: ``array_record`` is not installed.
        DataError: a process that decodes died.
    """
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    check = partial(_check_all, checks=checks)
    with Packer(folder, checks.rate) as packer:
        for checked in map_in_order(check, _chunks(entries), workers):
            for entry in checked:
                entry = _once(entry, seen)
                if isinstance(entry, Fault):
                    faults.append(entry)
                else:
                    row = entry.row
                    packer.add(row.id, row.text, row.language, entry.samples, entry.record)
                progress()
    return Summary(packer.rows, packer.seconds, tuple(faults))


def _chunks(entries: Iterable[Row | Fault]) -> Iterator[list[Row | Fault]]:
    iterator = iter(entries)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


def _once(entry: Checked | Fault, seen: dict[str, str]) -> Checked | Fault:
    """Returns an entry, or a fault if another row has its name already."""
    if isinstance(entry, Fault):
        return entry
    row = entry.row
    here = f"{row.source}, line {row.line}"
    first = seen.setdefault(row.id, here)
    if first == here:
        return entry
    return Fault(row.source, row.line, f"the id is that of {first} already", row.id)


def _check_all(entries: Sequence[Row | Fault], checks: Checks) -> list[Checked | Fault]:
    reader = ClipReader(checks.rate)
    return [
        entry if isinstance(entry, Fault) else _check(entry, reader, checks) for entry in entries
    ]


def _check(row: Row, reader: ClipReader, checks: Checks) -> Checked | Fault:
    try:
        text = _clean(row.text, checks)
        clip = reader.read(row, checks.max_seconds)
        _check_clip(clip, checks)
    except (SpeechError, OSError) as error:
        return Fault(row.source, row.line, str(error), row.id)
    stored = replace(row, text=text, audio="", columns={})  # what need not travel back
    return Checked(stored, len(clip), encode(clip, checks.rate))


def _clean(text: str, checks: Checks) -> str:
    """Returns a text of composed characters, with single spaces, in the case that is wanted."""
    text = " ".join(unicodedata.normalize("NFC", text).split())
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise DataError(f"the text {text[:40]!r} holds control characters")
    if not text:
        raise DataError("no text")
    return CASES[checks.case](text)


def _check_clip(clip: np.ndarray, checks: Checks) -> None:
    seconds = len(clip) / checks.rate
    if not len(clip) or seconds < checks.min_seconds:
        raise DataError(f"too short: {seconds:.3f} s, {checks.min_seconds:g} s are needed")
    if seconds > checks.max_seconds:
        raise DataError(f"too long: {seconds:.1f} s, {checks.max_seconds:g} s are accepted")
    if not clip.any():
        raise DataError("silence: every sample is 0")
