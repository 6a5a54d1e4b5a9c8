"""The recordings that arguments name, and what each is called among the results."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from speech_ed_flax.commands.outcome import UsageError

EXTENSIONS = (
    *(".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".mp3", ".oga", ".ogg", ".opus"),
    *(".snd", ".sph", ".voc", ".w64", ".wav", ".wave"),
)
"""Files of a folder with one of these endings, in upper or lower case, are recordings."""


@dataclass(frozen=True)
class Recording:
    """A file of sound, or a path that was named as one.

    Attributes:
        path: where it is.
        stem: its name among the results, without an extension; below the folder that was named.
    """

    path: Path
    stem: Path


def find_recordings(
    arguments: Sequence[Path], recursive: bool
) -> tuple[list[Recording], list[Path]]:
    """Finds the recordings that files and folders stand for.

    Args:
        arguments: files, taken as they are whether they exist or not, and folders.
        recursive: whether a folder stands for the whole tree below it.

    Returns:
        Each recording once, those of a folder sorted; and the folders that hold none.
    """
    found: dict[Path, Recording] = {}
    empty: list[Path] = []
    for argument in arguments:
        if not argument.is_dir():
            found.setdefault(argument, Recording(argument, Path(argument.stem)))
            continue
        paths = sorted(_sound_files(argument, recursive))
        if not paths:
            empty.append(argument)
        for path in paths:
            stem = path.relative_to(argument).with_name(path.stem)
            found.setdefault(path, Recording(path, stem))
    return list(found.values()), empty


def _sound_files(folder: Path, recursive: bool) -> Iterator[Path]:
    """Yields the visible files of sound in a folder; links to folders are not followed."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        for name in files:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS:
                yield path


def refuse_collisions(recordings: Iterable[Recording]) -> None:
    """Raises UsageError, naming both, if the results of two recordings would have one name."""
    named: dict[Path, Recording] = {}
    for recording in recordings:
        other = named.setdefault(recording.stem, recording)
        if other is not recording:
            raise UsageError(
                f"{other.path} and {recording.path} would both be written as {recording.stem}.*: "
                "transcribe them into different folders, or name their common folder and use "
                "--recursive."
            )
