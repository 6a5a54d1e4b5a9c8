"""Being asked to stop: SIGTERM or Ctrl-C, heard between two steps."""

import os
import signal
import threading
from types import FrameType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Hears SIGTERM and SIGINT while it is entered, and tells when to save and leave.

    On one process the handlers that were there before come back at the end. Where
    ``jax.distributed`` is initialised SIGTERM stays with its own listener, which tells the other
    processes: all of them stop after the same step; a Ctrl-C is passed on to it. A second Ctrl-C
    interrupts at once. Signals that are ignored, as under ``nohup``, stay ignored. In another
    thread than the main one, where Python hears no signals, nothing is changed.

    Attributes:
        signal: the first signal that this process heard, if any.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None
        self._interrupts = 0
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Preemption":
        if threading.current_thread() is threading.main_thread():
            heard = [signal.SIGINT]
            if not jax.distributed.is_initialized():
                heard.append(signal.SIGTERM)
            for number in heard:
                previous = signal.getsignal(number)
                if previous not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *error: Any) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        if number != signal.SIGINT:
            return
        self._interrupts += 1
        if self._interrupts > 1:
            raise KeyboardInterrupt
        if jax.distributed.is_initialized():
            os.kill(os.getpid(), signal.SIGTERM)

    def reached(self, step: int) -> bool:
        """Tells whether to save and leave after ``step``; all processes must ask at every step."""
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(step)
        return self.signal is not None
