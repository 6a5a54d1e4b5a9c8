"""How the processes start that decode sound: without JAX, and never outliving their parent.

``multiprocessing`` lets a new process begin with the program's main module, which may import
anything. Inside ``starting_workers`` it begins with this module instead: importing it, as anything
but a part of this process, has no effect.
"""

import importlib.machinery
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

_AS_MAIN = "__mp_main__"  # what multiprocessing calls the main module of a new process

if __name__ == _AS_MAIN:
    # grain imports JAX if it is there, only to flatten dictionaries. It would cost each worker a
    # second and 100 MB, and could take hold of the accelerator.
    sys.modules["jax"] = None  # type: ignore[assignment]
    logging.getLogger().addHandler(logging.NullHandler())  # grain warns that JAX is missing


@contextmanager
def starting_workers() -> Iterator[None]:
    """Lets processes that are started meanwhile begin with this module, not the program's own."""
    stand_in = ModuleType("__main__")
    stand_in.__spec__ = importlib.machinery.ModuleSpec(__name__, None)
    main = sys.modules["__main__"]
    sys.modules["__main__"] = stand_in
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def settle_worker(*_: int) -> None:
    """Leaves signals to the parent, and ends this process when the parent does.

    Ctrl-C, and the signal of a scheduler that wants its machine back, reach every process; the
    parent may still need batches until it has saved its state.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
