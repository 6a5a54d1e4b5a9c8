"""How a command ends: exit codes, and the errors that only a command line can have."""

from enum import IntEnum
from pathlib import Path

from speech_ed_flax.errors import SpeechError


class Outcome(IntEnum):
    """Exit codes, which are part of the interface."""

    DONE = 0
    INTERNAL_ERROR = 1
    USAGE_ERROR = 2
    SOME_FAILED = 3
    """Some inputs failed; the others were done."""
    ALL_FAILED = 4
    """No input could be done, or the model is unusable."""
    MISMATCH = 5
    """What was written does not read back the same."""
    PREEMPTED = 75
    """Asked to stop, and saved: the same command goes on (EX_TEMPFAIL)."""
    INTERRUPTED = 130
    """Ctrl-C, as a shell reports it."""
    NO_READER = 141
    """Whoever read the output went away, as a shell reports it."""


class UsageError(SpeechError):
    """Arguments that contradict each other, or what is on the disk."""


class VerificationError(SpeechError):
    """Files that do not read back as they were meant."""


def refuse_overwriting(destination: Path, force: bool) -> None:
    """Raises UsageError if ``destination`` is a file, or a folder with files and no ``force``."""
    if destination.exists() and not destination.is_dir():
        raise UsageError(f"{destination}: it is a file; name a folder.")
    if not force and destination.is_dir() and any(destination.iterdir()):
        raise UsageError(f"{destination}: it is not empty; name another folder, or use --force.")
