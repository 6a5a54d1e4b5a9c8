"""Transcripts as text, JSON and subtitles: on stdout, or in files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from speech_ed_flax.conversion.replacement import replacing
from speech_ed_flax.transcription import Transcript


def to_object(transcript: Transcript) -> dict[str, Any]:
    """Returns what JSON says of a transcript; times in seconds, to the millisecond."""
    return {
        "source": transcript.source,
        "text": transcript.text,
        "segments": [
            {"start": round(part.start, 3), "end": round(part.end, 3), "text": part.text}
            for part in transcript.segments
        ],
        "duration": round(transcript.duration, 3),
        "error": transcript.error,
    }


def to_line(text: str) -> str:
    """Returns ``text`` without tabs and line breaks, so that it is one field of one line."""
    return " ".join(text.split())


def _txt(transcript: Transcript) -> str:
    return to_line(transcript.text) + "\n"


def _json(transcript: Transcript) -> str:
    return json.dumps(to_object(transcript), ensure_ascii=False, indent=2) + "\n"


def _jsonl(transcript: Transcript) -> str:
    return json.dumps(to_object(transcript), ensure_ascii=False) + "\n"


def _srt(transcript: Transcript) -> str:
    cues = [
        f"{number}\n{_clock(part.start, ',')} --> {_clock(part.end, ',')}\n{_cue(part.text)}\n"
        for number, part in enumerate(transcript.segments, 1)
    ]
    return "\n".join(cues)


def _vtt(transcript: Transcript) -> str:
    cues = [
        f"\n{_clock(part.start, '.')} --> {_clock(part.end, '.')}\n{_cue(part.text)}\n"
        for part in transcript.segments
    ]
    return "WEBVTT\n" + "".join(cues)


def _tsv(transcript: Transcript) -> str:
    """Returns milliseconds and text, under the column names that Whisper's own command gives."""
    rows = [
        f"{round(part.start * 1000)}\t{round(part.end * 1000)}\t{to_line(part.text)}\n"
        for part in transcript.segments
    ]
    return "start\tend\ttext\n" + "".join(rows)


def _cue(text: str) -> str:
    """Returns the text of a subtitle, which must not look like the times of one."""
    return to_line(text).replace("-->", "->")


def _clock(seconds: float, mark: str) -> str:
    """Returns ``hours:minutes:seconds`` and milliseconds behind ``mark``."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, whole = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{whole:02}{mark}{milliseconds:03}"


RENDERERS: dict[str, Callable[[Transcript], str]] = {
    "txt": _txt,
    "json": _json,
    "jsonl": _jsonl,
    "srt": _srt,
    "vtt": _vtt,
    "tsv": _tsv,
}
"""What each format makes of a transcript; the names are those of the files' extensions."""


def print_transcript(transcript: Transcript, kind: str, several: bool) -> None:
    """Prints a transcript to stdout; one that failed only as JSON, which has a field for that.

    Args:
        transcript: of one recording.
        kind: a format; both kinds of JSON are one line here.
        several: whether lines of text must say which recording they are of.
    """
    if kind in ("json", "jsonl"):
        # A file name that is not UTF-8 is printed as JSON escapes.
        print(_jsonl(transcript).encode("utf-8", "backslashreplace").decode(), end="", flush=True)
    elif transcript.error is None:
        where = f"{transcript.source}\t" if several and kind == "txt" else ""
        print(where + RENDERERS[kind](transcript), end="", flush=True)


def result_files(stem: Path, kinds: Sequence[str]) -> list[Path]:
    """Returns the files of one recording's results."""
    return [stem.with_name(f"{stem.name}.{kind}") for kind in kinds]


def write_transcript(transcript: Transcript, stem: Path, kinds: Sequence[str]) -> None:
    """Writes one file a format, each of which appears whole or not at all.

    Raises:
        OSError: if the disk is full or the folder cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    for kind, path in zip(kinds, result_files(stem, kinds), strict=True):
        content = RENDERERS[kind](transcript).encode("utf-8", "backslashreplace")
        with replacing(path) as temporary:
            temporary.write_bytes(content)
