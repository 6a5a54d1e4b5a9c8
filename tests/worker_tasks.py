"""What tests let other processes do; importing it must import nothing heavy."""

import os
import signal
import sys
from collections.abc import Iterator

from speech_ed_flax.transcription.listening import Clip, End, Job, Listening


def heavy_modules(_: int) -> list[str]:
    """Returns what a process should not have imported."""
    heavy = ("jax", "flax", "transformers", "torch", "grain")
    return [name for name in heavy if name in sys.modules]


def square(number: int) -> int:
    """Returns the square of a number, or dies of a negative one."""
    if number < 0:
        os._exit(7)
    return number**2


class DeadlyListening(Listening):
    """Dies of recordings that are called deadly, of some of them once it has heard a clip."""

    def listen(self, job: Job) -> Iterator[Clip | End]:
        """Yields clips; see ``Listening``."""
        for event in super().listen(job):
            if "deadly" in job.name and (isinstance(event, End) or "at once" in job.name):
                os.kill(os.getpid(), signal.SIGSEGV)
            yield event


class StillbornListening(Listening):
    """Kills the process that gets it."""

    def __setstate__(self, state):
        os._exit(7)
