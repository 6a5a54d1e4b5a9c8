"""Ctrl-C that finishes what has begun."""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_NOTICE = "stopping after the recordings that have begun (Ctrl-C once more stops now)"


@contextmanager
def first_interrupt(finish: bool = True) -> Iterator[Callable[[], bool]]:
    """Yields what tells whether Ctrl-C was pressed, once; the second time it raises as ever.

    Args:
        finish: otherwise it raises at once.
    """
    before = signal.getsignal(signal.SIGINT)
    is_main = threading.current_thread() is threading.main_thread()
    if not (finish and is_main) or before in (signal.SIG_IGN, None):
        yield lambda: False
        return
    pressed = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        signal.signal(number, before)
        pressed.set()
        print(_NOTICE, file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, note)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, before)
