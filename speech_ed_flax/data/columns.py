"""One row of a manifest, made from columns by the names that other tools give them."""

import math
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


@dataclass(frozen=True)
class Row:
    """A stretch of sound and what is said in it.

    Attributes:
        id: its name, by which it is reported.
        audio: path of a file of sound, the bytes of one, or where in a file they are.
        text: what is said.
        duration: seconds; None if it is not known.
        offset: seconds at which it starts in its file, and lasts for ``duration``; None if it is
            the whole file.
        language: a tag such as ``en``; None if it is not known.
        columns: every column as it was read, by which rows are filtered.
    """

    id: str
    audio: str | bytes | Span
    text: str
    duration: float | None = None
    offset: float | None = None
    language: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


def column(columns: Mapping[str, Any], name: str) -> Any:
    """Returns the value of a field under any of its names; None if there is none."""
    for known in _NAMES[name]:
        if columns.get(known) not in (None, ""):
            return columns[known]
    return None


def row_of(columns: Mapping[str, Any], audio: str | bytes | Span, name: str) -> Row:
    """Returns the row that columns describe.

    Args:
        columns: as they were read; texts or numbers.
        audio: the sound, which the column of that name may only point to.
        name: its ``id``, unless a column says another.

    Raises:
        DataError: a column has no usable value; the message names the column, not the row.
    """
    text = column(columns, "text")
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            "no text" if text is None or isinstance(text, str) else f"text={text!r} is not text"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("the text is not UTF-8") from None
    duration, offset = _seconds(columns, "duration"), _seconds(columns, "offset")
    if duration == 0:
        raise DataError("duration=0: there is nothing to hear")
    if offset and duration is None:
        raise DataError(f"offset={offset:g} needs a duration")
    if offset is not None and duration is None:
        offset = None
    language = column(columns, "language")
    chosen = column(columns, "id")
    if chosen is not None:
        name = str(chosen)
    elif offset is not None:
        name = f"{name}@{offset:g}"
    language = None if language is None else str(language)
    return Row(name, audio, text, duration, offset, language, dict(columns))


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
