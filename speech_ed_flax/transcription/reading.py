"""Listens to recordings ahead of the model, in processes of their own."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.worker import WORKER_DIED, start_worker
from speech_ed_flax.transcription.listening import Clip, End, Job, Listening

Event = Clip | End
"""What is heard of a recording; the end comes last."""

_AT_ONCE = 4
"""Clips of one recording that a process makes before it is asked for more."""


@dataclass
class _Reading:
    """A recording that a process listens to."""

    job: Job
    number: int
    pool: ProcessPoolExecutor
    events: Future[list[Event]]


def read(
    jobs: Iterable[Job], listening: Listening, workers: int = 0, ahead: int = 8
) -> Iterator[tuple[Job, Event]]:
    """Yields what is heard, recording by recording in their order.

    However long a recording is, a few clips of it are held at a time.

    Args:
        jobs: taken as they are needed.
        listening: how they become clips.
        workers: processes that listen; with 0 this one does.
        ahead: recordings that have begun to be heard.

    Raises:
        DataError: a process died.
    """
    if not workers:
        for job in jobs:
            for event in listening.listen(job):
                yield job, event
        return
    pools = [start_worker(_prepare, listening) for _ in range(workers)]
    try:
        yield from _read(iter(jobs), pools, max(ahead, 2 * workers))
    except BrokenProcessPool as error:
        raise DataError(WORKER_DIED) from error
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _read(
    jobs: Iterator[Job], pools: list[ProcessPoolExecutor], ahead: int
) -> Iterator[tuple[Job, Event]]:
    readings: deque[_Reading] = deque()
    begun = 0
    while True:
        for job in islice(jobs, ahead - len(readings)):
            pool = pools[begun % len(pools)]
            readings.append(_Reading(job, begun, pool, pool.submit(_begin, begun, job)))
            begun += 1
        if not readings:
            return
        reading = readings.popleft()
        events: list[Event] = []
        while not (events and isinstance(events[-1], End)):
            events = reading.events.result()
            if not isinstance(events[-1], End):
                reading.events = reading.pool.submit(_go_on, reading.number)
            for event in events:
                yield reading.job, event


_listening: Listening | None = None
_streams: dict[int, Iterator[Event]] = {}
"""Of this process, if it listens: how, and the recordings that it is in the midst of."""


def _prepare(listening: Listening) -> None:
    global _listening
    _listening = listening


def _begin(number: int, job: Job) -> list[Event]:
    assert _listening is not None
    _streams[number] = _listening.listen(job)
    return _go_on(number)


def _go_on(number: int) -> list[Event]:
    events = list(islice(_streams[number], _AT_ONCE))
    if isinstance(events[-1], End):
        del _streams[number]
    return events
