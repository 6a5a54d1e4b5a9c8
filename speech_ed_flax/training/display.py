"""What a person sees of a training on stderr."""

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


class Display:
    """A live bar on a terminal, lines elsewhere."""

    def __init__(self, steps: int):
        """Prepares for a training of so many steps."""
        self._steps = steps
        self._bar: Any = None
        self._task: Any = None

    @contextmanager
    def shown(self, step: int) -> Iterator["Display"]:
        """Shows the progress from ``step`` on, while the block runs."""
        if not sys.stderr.isatty():
            yield self
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True)) as self._bar:
            self._task = self._bar.add_task("", total=self._steps, completed=step)
            yield self
        self._bar = None

    def say(self, line: str) -> None:
        """Prints a line that stays."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, markup=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Shows the latest measurements."""
        loss = values["train/loss"] or math.nan
        line = (
            f"loss {loss:.3f}  rate {values['train/learning_rate']:.2g}  "
            f"{values['speed/audio_seconds_per_second']:.1f} s of audio/s  "
            f"waiting {values['speed/data_wait_percent']:.0f} %"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=line)
        else:
            self.say(f"step {step} of {self._steps}  {line}")
