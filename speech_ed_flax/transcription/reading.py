"""Listens to recordings ahead of the model, in processes of their own."""

import os
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

_DEADLY = (
    "{}: the process that decodes it died (convert it to WAV or FLAC, or give the machine more "
    "memory)"
)


@dataclass(frozen=True)
class _Reading:
    """A recording that a process has begun to listen to."""

    job: Job
    number: int
    pool: ProcessPoolExecutor
    first: Future[list[Event]]

    def events(self) -> Iterator[Event]:
        """Yields what is heard, while the next clips are made."""
        future = self.first
        while True:
            events = future.result()
            goes_on = not isinstance(events[-1], End)
            if goes_on:
                future = self.pool.submit(_go_on, self.number)
            yield from events
            if not goes_on:
                return


def read(
    jobs: Iterable[Job], listening: Listening, workers: int = 0, ahead: int = 8
) -> Iterator[tuple[Job, Event]]:
    """Yields what is heard, recording by recording in their order.

    However long a recording is, a few clips of it are held at a time. A recording that kills the
    process that listens to it ends with an error, as one that cannot be decoded does.

    Args:
        jobs: taken as they are needed.
        listening: how they become clips.
        workers: processes that listen; with 0 this one does.
        ahead: recordings that have begun to be heard.

    Raises:
        DataError: a process died before it had anything to listen to.
    """
    if not workers:
        for job in jobs:
            for event in listening.listen(job):
                yield job, event
        return
    pools = [start_worker(_prepare, listening) for _ in range(workers)]
    try:
        for reading in _readings(jobs, pools, listening, max(ahead, 2 * workers)):
            for event in _heard(reading, listening):
                yield reading.job, event
    except BrokenProcessPool as error:
        raise DataError(WORKER_DIED) from error
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _readings(
    jobs: Iterable[Job], pools: list[ProcessPoolExecutor], listening: Listening, ahead: int
) -> Iterator[_Reading]:
    """Yields recordings in their order, ``ahead`` of them begun; replaces pools that are broken."""
    readings: deque[_Reading] = deque()
    for number, job in enumerate(jobs):
        slot = number % len(pools)
        try:
            readings.append(_begun(number, job, pools[slot]))
        except BrokenProcessPool:
            pools[slot] = start_worker(_prepare, listening)
            readings.append(_begun(number, job, pools[slot]))
        if len(readings) == ahead:
            yield readings.popleft()
    yield from readings


def _begun(number: int, job: Job, pool: ProcessPoolExecutor) -> _Reading:
    return _Reading(job, number, pool, pool.submit(_begin, number, job))


def _heard(reading: _Reading, listening: Listening) -> Iterator[Event]:
    """Yields what is heard of a recording, though its process may die of it or of another one."""
    told = 0
    try:
        for event in reading.events():
            yield event
            told += 1
    except BrokenProcessPool:
        yield from islice(_heard_alone(reading.job, listening), told, None)


def _heard_alone(job: Job, listening: Listening) -> Iterator[Event]:
    """Yields what is heard in a new process: if that dies too, it is the recording's fault."""
    pool = start_worker(_prepare, listening)
    try:
        pool.submit(os.getpid).result()
        try:
            yield from _begun(0, job, pool).events()
        except BrokenProcessPool:
            yield End(0.0, _DEADLY.format(job.name))
    finally:
        pool.shutdown(cancel_futures=True)


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
