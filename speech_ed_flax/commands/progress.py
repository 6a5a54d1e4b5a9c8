"""What is said on stderr while recordings are transcribed, and at the end."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from speech_ed_flax.commands.outcome import Outcome


@dataclass
class Tally:
    """What became of the inputs so far; ``seconds`` are seconds of sound."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    seconds: float = 0.0
    started: float = field(default_factory=time.perf_counter)
    usage: Any = None
    """Of the model, if there was any; see ``transcription.Transcriber``."""
    interrupted: bool = False
    """Whether inputs are left, by Ctrl-C."""

    def fail(self, reason: str) -> None:
        """Counts an input that failed, and says why on stderr."""
        self.failed += 1
        print(f"error: {reason}", file=sys.stderr, flush=True)

    def succeed(self, seconds: float) -> None:
        """Counts an input that was transcribed."""
        self.done += 1
        self.seconds += seconds

    def outcome(self) -> Outcome:
        """Returns the exit code."""
        if self.interrupted:
            return Outcome.INTERRUPTED
        if not self.done and not self.kept:
            return Outcome.ALL_FAILED
        return Outcome.SOME_FAILED if self.failed else Outcome.DONE

    def summary(self) -> str:
        """Returns one line; RTFx is seconds of sound per second, all that takes time included."""
        wall = self._wall()
        counts = f"{self.done} transcribed"
        counts += f", {self.kept} kept" if self.kept else ""
        counts += f", {self.failed} failed" if self.failed else ""
        line = f"{counts}: {self.seconds:.1f} s of audio in {wall:.1f} s (RTFx {self.speed():.1f}"
        if self.usage is not None and self.usage.computed:
            line += f", padding {100 * self.usage.padding:.0f} %"
            line += f", recognising {100 * self.usage.busy / wall:.0f} % of the time"
        return line + ")"

    def speed(self) -> float:
        """Returns RTFx so far."""
        return self.seconds / self._wall()

    def _wall(self) -> float:
        return max(time.perf_counter() - self.started, 1e-9)


def reporter(quiet: bool) -> Callable[[str], None]:
    """Returns what says a line on stderr, unless it is to be quiet."""

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    return report


@contextmanager
def progress_bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """Yields what is to be called after each of ``total`` recordings.

    Args:
        total: number of recordings.
        shown: whether to show a bar on stderr, if that is a terminal.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("transcribing"), MofNCompleteColumn(), TimeElapsedColumn())
    # Left to itself, rich would send what is printed to stdout to its own console: to stderr.
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as progress:
        task = progress.add_task("", total=total)
        yield lambda: progress.advance(task)
