"""Transcripts as text, JSON and subtitles: on stdout, or in files; written as they become known."""

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.transcription import Segment, Transcript, Word


def to_object(transcript: Transcript) -> dict[str, Any]:
    """Returns what JSON says of a transcript; times in seconds, to the millisecond."""
    return {
        "source": transcript.source,
        "text": transcript.text,
        "segments": [_segment(part) for part in transcript.segments],
        "duration": round(transcript.duration, 3),
        "error": transcript.error,
    }


def _segment(part: Segment) -> dict[str, Any]:
    """Returns what JSON says of a segment: what there is always, then what was asked for."""
    found: dict[str, Any] = _stretch(part)
    for name in ("avg_log_prob", "compression_ratio"):
        value = getattr(part, name)
        found[name] = None if value is None else round(value, 4)
    if part.suppressed is not None:
        found |= {"suppressed": part.suppressed, "heard": part.heard}
    if part.alternatives:
        found["alternatives"] = [
            {"text": other.text, "avg_log_prob": round(other.avg_log_prob or 0.0, 4)}
            for other in part.alternatives
        ]
    if part.words:
        found["words"] = [_stretch(word) for word in part.words]
    return found


def _stretch(part: Segment | Word) -> dict[str, Any]:
    return {"start": round(part.start, 3), "end": round(part.end, 3), "text": part.text}


def to_line(text: str) -> str:
    """Returns ``text`` without tabs and line breaks, so that it is one field of one line."""
    return " ".join(text.split())


class Format(NamedTuple):
    """How a kind of file is written, piece by piece.

    Attributes:
        head: what it begins with.
        part: what it says of a segment, given its number, from 1.
        tail: what it ends with.
    """

    head: str
    part: Callable[[int, Segment], str]
    tail: Callable[[Transcript], str]


def _nothing(*_: Any) -> str:
    return ""


def _words(number: int, part: Segment) -> str:
    return (" " if number > 1 else "") + to_line(part.text)


def _end_of_line(_: Transcript) -> str:
    return "\n"


def _json(transcript: Transcript) -> str:
    return json.dumps(to_object(transcript), ensure_ascii=False, indent=2) + "\n"


def _jsonl(transcript: Transcript) -> str:
    return json.dumps(to_object(transcript), ensure_ascii=False) + "\n"


def _srt(number: int, part: Segment) -> str:
    times = f"{_clock(part.start, ',')} --> {_clock(part.end, ',')}"
    return ("\n" if number > 1 else "") + f"{number}\n{times}\n{_cue(part.text)}\n"


def _vtt(_: int, part: Segment) -> str:
    return f"\n{_clock(part.start, '.')} --> {_clock(part.end, '.')}\n{_cue(part.text)}\n"


def _tsv(_: int, part: Segment) -> str:
    return f"{round(part.start * 1000)}\t{round(part.end * 1000)}\t{to_line(part.text)}\n"


def _cue(text: str) -> str:
    """Returns the text of a subtitle, which must not look like the times of one."""
    return to_line(text).replace("-->", "->")


def _clock(seconds: float, mark: str) -> str:
    """Returns ``hours:minutes:seconds`` and milliseconds behind ``mark``."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, whole = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{whole:02}{mark}{milliseconds:03}"


FORMATS = {
    "txt": Format("", _words, _end_of_line),
    "json": Format("", _nothing, _json),
    "jsonl": Format("", _nothing, _jsonl),
    "srt": Format("", _srt, _nothing),
    "vtt": Format("WEBVTT\n", _vtt, _nothing),
    # Milliseconds and text, under the column names that Whisper's own command gives.
    "tsv": Format("start\tend\ttext\n", _tsv, _nothing),
}
"""By the extensions of their files."""


class Page:
    """One format of one transcript, written as it becomes known."""

    def __init__(self, kind: str, write: Callable[[str], Any]):
        self._format, self._parts = FORMATS[kind], 0
        # A file name that is not UTF-8 becomes an escape.
        self._write = lambda text: write(text.encode("utf-8", "backslashreplace").decode())
        self._write(self._format.head)

    def add(self, part: Segment) -> None:
        """Writes what is said of a segment; one without text is not mentioned."""
        if part.text:
            self._parts += 1
            self._write(self._format.part(self._parts, part))

    def end(self, transcript: Transcript) -> None:
        """Writes what comes after the last segment."""
        self._write(self._format.tail(transcript))


def render(transcript: Transcript, kind: str) -> str:
    """Returns a whole transcript in one format."""
    written: list[str] = []
    page = Page(kind, written.append)
    for part in transcript.segments:
        page.add(part)
    page.end(transcript)
    return "".join(written)


def _say(text: str) -> None:
    print(text, end="", flush=True)


class Printer:
    """Prints transcripts to stdout; one that failed only as JSON, which has a field for that.

    Args:
        kind: a format; both kinds of JSON are one line here.
        several: whether lines of text must say which recording they are of.
    """

    def __init__(self, kind: str, several: bool):
        self._kind = "jsonl" if kind == "json" else kind
        self._is_table = several and kind == "txt"
        self._page: Page | None = None

    def add(self, part: Segment) -> None:
        """Prints a segment of the present transcript, unless that takes one line with others."""
        if not self._is_table:
            self._page = self._page or Page(self._kind, _say)
            self._page.add(part)

    def end(self, transcript: Transcript) -> None:
        """Prints what is left of the present transcript, and is ready for the next."""
        page, self._page = self._page, None
        if transcript.error is not None and self._kind != "jsonl":
            return
        if self._is_table:
            print(f"{transcript.source}\t{to_line(transcript.text)}", flush=True)
        else:
            (page or Page(self._kind, _say)).end(transcript)


class _DroppedError(Exception):
    """Ends the writing of files that shall not be."""


class Files:
    """Writes a transcript to one file a format, each of which appears whole or not at all.

    Args:
        stem: the files' path without its extension.
        kinds: formats.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
    """

    def __init__(self, stem: Path, kinds: Sequence[str]):
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._stack = ExitStack()
        self._pages = [
            Page(kind, self._open(path).write)
            for kind, path in zip(kinds, result_files(stem, kinds), strict=True)
        ]

    def _open(self, path: Path) -> TextIO:
        temporary = self._stack.enter_context(replacing(path))
        return self._stack.enter_context(open(temporary, "w", encoding="utf-8", newline="\n"))

    def add(self, part: Segment) -> None:
        """Writes a segment to every file."""
        for page in self._pages:
            page.add(part)

    def end(self, transcript: Transcript) -> None:
        """Finishes the files, which get their names; of a transcript that failed there are none."""
        if transcript.error is not None:
            self.drop()
            return
        for page in self._pages:
            page.end(transcript)
        self._stack.close()

    def drop(self) -> None:
        """Leaves no file."""
        with suppress(_DroppedError), self._stack:
            raise _DroppedError


def result_files(stem: Path, kinds: Sequence[str]) -> list[Path]:
    """Returns the files of one recording's results."""
    return [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]
