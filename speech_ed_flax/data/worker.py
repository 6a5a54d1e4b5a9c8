"""Processes that decode sound: they start without JAX, and neither die early nor live on.

``multiprocessing`` lets a new process begin with the program's main module, which may import JAX
and which, without a guard, would start the whole program again. Inside ``starting_workers`` it
begins with nothing instead.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

from speech_ed_flax.data.errors import DataError

WORKER_DIED = (
    "a process that decodes sound died (give the machine more memory, use fewer workers, or 0 to "
    "see why)."
)


def start_worker(prepare: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """Returns a pool of one process, which has begun to start.

    Args:
        prepare: called in it first.
        arguments: of ``prepare``; they are pickled.
    """
    context = multiprocessing.get_context("spawn")  # a fork would inherit JAX with its threads
    pool = ProcessPoolExecutor(1, context, _begin, (prepare, *arguments))
    with starting_workers():
        pool.submit(os.getpid)  # starts the process, here and now
    return pool


@contextmanager
def starting_workers() -> Iterator[None]:
    """Lets processes that are started meanwhile import no main module, and be deaf to signals."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        with _blocked_signals():
            yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Blocks what a new process would inherit unblocked, in every thread it will have.

    Ctrl-C, and the signal of a scheduler that wants its machine back, reach every process; the
    parent may still need batches until it has saved its state. So a worker listens to none but its
    parent, where the system tells who sent a signal.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(prepare: Callable[..., None], *arguments: Any) -> None:
    """Begins the life of a worker, which ends with its parent's at the latest."""
    with suppress(OSError):  # there may be no stderr
        os.dup2(2, 1)  # decoders print what they find damaged: stdout is for results
    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()
    if hasattr(signal, "sigwaitinfo"):
        threading.Thread(target=_end_on_request, daemon=True).start()
    else:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    prepare(*arguments)


def _end_after(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _end_on_request() -> None:
    """Ends this process when its parent asks for it, and nobody else."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(1)


def map_in_order(
    function: Callable[[Any], Any], items: Iterable[Any], workers: int
) -> Iterator[Any]:
    """Yields ``function`` of every item, in order, computed in other processes.

    Args:
        function: of a module; it is pickled, and so are items and results.
        items: taken as they are needed, a few ahead of the results.
        workers: processes; with 0 this one does it.

    Raises:
        DataError: a process died.
    """
    if not workers:
        yield from map(function, items)
        return
    pools = [start_worker(_nothing) for _ in range(workers)]
    ahead: deque[Future[Any]] = deque()
    try:
        for number, item in enumerate(items):
            if len(ahead) == 2 * workers:
                yield ahead.popleft().result()
            ahead.append(pools[number % workers].submit(function, item))
        while ahead:
            yield ahead.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(WORKER_DIED) from error
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _nothing() -> None:
    """Prepares nothing."""
