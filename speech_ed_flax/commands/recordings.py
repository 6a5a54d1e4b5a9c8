"""The recordings that arguments name, and what each is called among the results."""

import glob
import heapq
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.errors import SpeechError

EXTENSIONS = (
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus"),
    *(".snd", ".sph", ".voc", ".w64", ".wav", ".wave"),
    *(".aac", ".avi", ".flv", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp4", ".webm", ".wma"),
)
"""Files of a folder with one of these endings, in upper or lower case, are recordings."""

STDIN = Path("/dev/stdin")


@dataclass(frozen=True, slots=True)
class Recording:
    """Something to be transcribed.

    Attributes:
        source: a path, bytes, or a span of an archive.
        name: what it is called in results and messages.
        stem: its name among the results, without an extension; below the folder that was named.
        offset: seconds at which the wanted part of it starts.
        duration: seconds of that part; None for all.
        seconds: that it lasts, where a manifest tells.
    """

    source: Any
    name: str
    stem: Path
    offset: float = 0.0
    duration: float | None = None
    seconds: float | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """What no two recordings have in common."""
        return self.source, self.offset, self.duration


@dataclass
class Found:
    """What arguments stand for, each recording once, and why other things are none."""

    recordings: list[Recording] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def find_recordings(arguments: Sequence[Path], recursive: bool) -> Found:
    """Finds the recordings that files, folders, patterns, manifests and archives stand for.

    Args:
        arguments: files, taken as they are whether they exist or not; folders; patterns such as
            ``calls/*.wav``; manifests; tar archives; ``-`` for a recording on stdin.
        recursive: whether a folder stands for the whole tree below it.
    """
    found, seen = Found(), set()
    for argument in arguments:
        for recording in _recordings(argument, recursive):
            if isinstance(recording, str):
                found.faults.append(recording)
            elif recording.key not in seen:
                seen.add(recording.key)
                found.recordings.append(recording)
    return found


def _recordings(argument: Path, recursive: bool) -> Iterator[Recording | str]:
    """Yields the recordings of one argument, or what is wrong."""
    if argument.is_dir():
        yield from _of_folder(argument, recursive)
    elif argument == STDIN:
        yield Recording(sys.stdin.buffer.read(), "stdin", Path("stdin"))
    elif _holds_rows(argument):
        yield from _of_rows(argument)
    elif glob.has_magic(str(argument)) and not argument.exists():
        paths = sorted(map(Path, glob.glob(str(argument), recursive=True)))
        if not paths:
            yield f"{argument}: matches no file (correct the pattern)"
        for path in paths:
            yield from _recordings(path, recursive)
    else:
        yield Recording(argument, str(argument), Path(argument.stem))


def _of_folder(folder: Path, recursive: bool) -> Iterator[Recording | str]:
    paths = sorted(_sound_files(folder, recursive))
    if not paths:
        yield f"{folder}: holds no recording (name another folder, or use --recursive)"
    for path in paths:
        yield Recording(path, str(path), path.relative_to(folder).with_name(path.stem))


def _holds_rows(path: Path) -> bool:
    """Tells a manifest or an archive by its name."""
    from speech_ed_flax.data import manifest, tar

    return path.name.lower().endswith(manifest.SUFFIXES + tar.SUFFIXES)


def _of_rows(path: Path) -> Iterator[Recording | str]:
    """Yields what a manifest or an archive holds."""
    from speech_ed_flax.data.rows import Fault
    from speech_ed_flax.data.sources import scan_source

    try:
        for row in scan_source(str(path), needs_text=False):
            if isinstance(row, Fault):
                yield str(row)
                continue
            # A duration without an offset describes the whole file, and is not needed.
            part = (0.0, None) if row.offset is None else (row.offset, row.duration)
            yield Recording(row.audio, row.id, _stem(row.id), *part, row.duration)
    except SpeechError as error:
        yield str(error)


def _stem(name: str) -> Path:
    """Returns the name of a row's results: a path that stays below its folder."""
    parts = [part for part in Path(name).parts if part not in ("..", os.sep)]
    path = Path(*parts) if parts else Path("recording")
    return path.with_name(path.stem) if path.suffix.lower() in EXTENSIONS else path


def _sound_files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yields the visible files of sound in a folder; links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS:
                yield path


def share(recordings: Sequence[Recording], shard: str) -> list[Recording]:
    """Returns the recordings that are this process's, of several that share the work.

    Every process deals the same pack: the longest recordings first, each to who has least.

    Args:
        recordings: all of them, the same in every process.
        shard: ``K/N``, this process's number, from 1, and how many there are.

    Raises:
        UsageError: there is no such shard.
    """
    number, _, count = shard.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {shard}: name one of several, as in 1/4 to 4/4.")
    sizes = [_size(recording) for recording in recordings]
    loads = [(0.0, shard) for shard in range(1, int(count) + 1)]  # a heap: the least comes first
    mine = []
    for index in sorted(range(len(recordings)), key=lambda i: (-sizes[i], i)):
        load, receiver = loads[0]
        heapq.heapreplace(loads, (load + sizes[index], receiver))
        if receiver == int(number):
            mine.append(index)
    return [recordings[index] for index in sorted(mine)]


def _size(recording: Recording) -> float | int:
    """Returns seconds where only a part of a recording is wanted, else bytes."""
    source = recording.source
    if recording.duration is not None:
        return recording.duration
    if isinstance(source, str | Path):
        return os.path.getsize(source) if os.path.exists(source) else 0
    return len(source) if isinstance(source, bytes) else source.size


def refuse_collisions(recordings: Iterable[Recording]) -> None:
    """Raises UsageError, naming both, if the results of two recordings would have one name."""
    named: dict[Path, Recording] = {}
    for recording in recordings:
        other = named.setdefault(recording.stem, recording)
        if other is not recording:
            raise UsageError(
                f"{other.name} and {recording.name} would both be written as {recording.stem}.*: "
                "transcribe them into different folders, or name their common folder and use "
                "--recursive."
            )
