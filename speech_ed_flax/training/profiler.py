"""A window of steps that is traced for TensorBoard."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import jax


class Profiler:
    """Traces some steps of a training; what lies outside of them costs nothing."""

    def __init__(self, steps: range, folder: Path):
        """Names the steps, counted from 1, and where the trace goes."""
        self._steps, self._folder, self._tracing = steps, folder, False

    def __enter__(self) -> "Profiler":
        """Begins; nothing is traced yet."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the trace if the training ended within the window."""
        self._stop()

    def step(self, number: int) -> AbstractContextManager[object]:
        """Returns the context that a step is taken in."""
        if number not in self._steps:
            self._stop()
            return nullcontext()
        if not self._tracing:
            jax.profiler.start_trace(str(self._folder))
            self._tracing = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def _stop(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False
