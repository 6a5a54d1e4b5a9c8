"""One row of a set, made from columns by the names that other tools give them."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.span import Span

_NAMES = {
    "audio": ("audio", "path", "audio_filepath", "file", "file_name"),
    "text": ("text", "sentence", "transcription"),
    "duration": ("duration", "seconds"),
    "offset": ("offset",),
    "language": ("language", "lang", "locale"),
    "id": ("id", "utt_id"),
}
"""What each field may be called; the first name that a row has counts."""

Audio = str | bytes | Span
"""Path of a file of sound, the bytes of one, or where in a file they are."""


@dataclass(frozen=True)
class Row:
    """A stretch of sound and what is said in it.

    Attributes:
        id: its name, by which it is reported.
        audio: where its sound is.
        text: what is said.
        duration: seconds; None if it is not known.
        offset: seconds at which it starts in its file, and lasts for ``duration``; None if it is
            the whole file.
        language: a tag such as ``en``; None if it is not known.
        columns: every column as it was read, by which rows are filtered.
        source: file that it was read from.
        line: its number there, from 1; of an archive or a data set, the number of the sample.
    """

    id: str
    audio: Audio
    text: str
    duration: float | None = None
    offset: float | None = None
    language: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    source: str = ""
    line: int = 0


@dataclass(frozen=True)
class Fault:
    """A row that cannot be used.

    Attributes:
        source: file that it was read from.
        line: its number there, as that of a ``Row``.
        reason: what is wrong with it.
        id: its name, as far as it has one.
    """

    source: str
    line: int
    reason: str
    id: str = ""

    def __str__(self) -> str:
        return f"{self.source}, line {self.line}: {self.reason}"


def column(columns: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a field under any of its names; None if there is none."""
    for known in _NAMES[name]:
        if columns.get(known) not in (None, ""):
            return columns[known]
    return None


def read_row(
    columns: Mapping[str, Any],
    audio: Audio,
    name: str,
    source: str,
    line: int,
    needs_text: bool = True,
) -> Row | Fault:
    """Returns the row that columns describe, or what is wrong with them.

    Args:
        columns: as they were read; texts or numbers.
        audio: the sound.
        name: id of the row, unless a column says another.
        source: file that it was read from.
        line: its number there.
        needs_text: whether a row without text is of no use.
    """
    chosen = column(columns, "id")
    name = name if chosen is None else str(chosen)
    try:
        duration, offset = _stretch(columns)
        if offset is not None and chosen is None:
            name = f"{name}@{offset:g}"  # rows of one recording
        language, text = column(columns, "language"), _text(columns, needs_text)
    except DataError as error:
        return Fault(source, line, str(error), name)
    language = None if language is None else sys.intern(str(language))
    return Row(name, audio, text, duration, offset, language, columns, source, line)


def _text(columns: Mapping[str, Any], needed: bool) -> str:
    text = column(columns, "text")
    if text is None and not needed:
        return ""
    if text is None or (isinstance(text, str) and not text.strip()):
        raise DataError("no text")
    if not isinstance(text, str):
        raise DataError(f"text={text!r} is not text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("the text is not UTF-8") from None
    return text


def _stretch(columns: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Returns duration and offset; the latter only if the row is a part of its file."""
    duration, offset = _seconds(columns, "duration"), _seconds(columns, "offset")
    if duration == 0:
        raise DataError("duration=0: there is nothing to hear")
    if offset and duration is None:
        raise DataError(f"offset={offset:g} needs a duration")
    return duration, None if duration is None else offset


def _seconds(columns: Mapping[str, Any], name: str) -> float | None:
    value = column(columns, name)
    if value is None:
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise DataError(f"{name}={value!r} is not a number of seconds")
    return seconds
