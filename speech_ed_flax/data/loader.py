"""Loads the batches of a plan ahead of their use, in processes or in a thread."""

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from speech_ed_flax.audio.features import Features
from speech_ed_flax.data.batches import EMPTY, Plan
from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.extras import require
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.speed import change_speed
from speech_ed_flax.data.store import Store
from speech_ed_flax.data.worker import WORKER_DIED, start_worker
from speech_ed_flax.errors import ConfigError


@dataclass(frozen=True)
class Part:
    """The rows of every batch that one process loads.

    Attributes:
        index: of this part; it is the ``index``-th run of rows.
        count: parts that batches are cut into.

    Raises:
        ConfigError: there is no such part.
    """

    index: int = 0
    count: int = 1

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ConfigError(f"part {self.index} of {self.count} parts does not exist.")

    def of(self, rows: int) -> slice:
        """Returns which of the rows of a batch this part has.

        Raises:
            ConfigError: they cannot be shared equally.
        """
        if rows % self.count:
            raise ConfigError(f"{rows} rows of a batch cannot be shared by {self.count} processes.")
        size = rows // self.count
        return slice(self.index * size, (self.index + 1) * size)


@dataclass(frozen=True)
class LoadedBatch:
    """One part of a batch.

    Attributes:
        step: its number in the plan.
        epoch: that it belongs to.
        shape: sizes of the whole batch.
        inputs: float32 ``[rows, samples]`` or ``[rows, mels, frames]``.
        mask: bool ``[rows, samples or frames]``; empty rows have none.
        labels: int32 ``[rows, labels]``; -100 is padding.
        rows: int64 ``[rows]``, numbers in the store; -1 is empty.
        ids: names of these rows; ``""`` is empty.
        seconds: of sound in the whole batch, at the speeds it is heard.
        padding: share of the whole batch's samples that are not sound.
        waited: seconds that passed until it was there, once it was asked for.
    """

    step: int
    epoch: int
    shape: Shape
    inputs: np.ndarray
    mask: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    ids: tuple[str, ...]
    seconds: float
    padding: float
    waited: float


class Loader:
    """Iterates over the batches of a plan, in order, whatever the number of workers.

    It is to be closed, best as a context manager, so that its processes end.
    """

    def __init__(
        self,
        store: Store,
        labels: Labels,
        features: Features,
        plan: Plan,
        start: int = 0,
        part: Part = Part(),
        workers: int = 1,
        prefetch: int = 2,
    ):
        """Starts to load at once.

        Args:
            store: the rows.
            labels: of each row.
            features: what the encoder hears of a clip.
            plan: the batches.
            start: number of the first one.
            part: the rows of each that this process loads.
            workers: processes that load; with 0 a thread of this one does.
            prefetch: batches that each keeps ready.

        Raises:
            ConfigError: the data has no such rate or part, or grain is not installed.
        """
        if features.sampling_rate != store.rate:
            raise ConfigError(
                f"{store.name}: sound at {store.rate} Hz, the model hears "
                f"{features.sampling_rate} Hz (open it at that rate)."
            )
        self._store, self._labels, self._plan, self._part = store, labels, plan, part
        self._step = start
        grain: Any = require("grain", "train")
        source = _Inputs(store, features, plan, start, part)
        self._crew = _Crew(source, workers)
        lanes = max(1, workers)
        ahead = grain.ReadOptions(num_threads=lanes, prefetch_buffer_size=lanes * prefetch)
        steps = grain.MapDataset.source(range(len(source))).map(self._crew.load)
        self._batches = iter(steps.to_iter_dataset(ahead))
        self._batches.start_prefetch()

    def __iter__(self) -> Iterator[LoadedBatch]:
        return self

    def __next__(self) -> LoadedBatch:
        """Returns the next batch.

        Raises:
            SpeechError: the sound of a row cannot be read; the message names it.
            StopIteration: the plan has no more.
        """
        if self._step >= len(self._plan):
            raise StopIteration
        asked = time.perf_counter()
        loaded = next(self._batches)
        waited = time.perf_counter() - asked
        planned = self._plan[self._step]
        shape, seconds = planned.shape, float(planned.samples.sum()) / self._store.rate
        rows = planned.rows[self._part.of(shape.rows)]
        numbers: list[int] = rows.tolist()
        self._step += 1
        return LoadedBatch(
            step=self._step - 1,
            epoch=planned.epoch,
            shape=shape,
            inputs=loaded["inputs"],
            mask=loaded["mask"],
            labels=self._labels.padded(rows, shape.labels),
            rows=rows,
            ids=tuple(self._store.ids[row] if row != EMPTY else "" for row in numbers),
            seconds=seconds,
            padding=1 - seconds * self._store.rate / (shape.rows * shape.samples),
            waited=waited,
        )

    def close(self) -> None:
        """Ends the workers; no batch can be asked for after this."""
        self._step = len(self._plan)
        self._crew.close()
        self._batches.close()

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Inputs:
    """The inputs of batches from ``start`` on, by number; it travels to the workers."""

    def __init__(self, store: Store, features: Features, plan: Plan, start: int, part: Part):
        # Texts stay behind: no worker needs them.
        self._store, self._features = dataclasses.replace(store, texts=(), languages=()), features
        self._plan, self._start, self._part = plan, start, part

    def __len__(self) -> int:
        return max(0, len(self._plan) - self._start)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        planned = self._plan[self._start + index]
        here = self._part.of(planned.shape.rows)
        rows = zip(planned.rows[here].tolist(), planned.speeds[here].tolist(), strict=True)
        clips = [self._clip(row, speed) for row, speed in rows]
        inputs, mask = self._features.features(clips, pad_to=planned.shape.samples)
        return {"inputs": inputs, "mask": mask}

    def _clip(self, row: int, speed: float) -> np.ndarray:
        if row == EMPTY:
            return np.empty(0, np.float32)
        return change_speed(self._store.samples(row), speed)


class _Crew:
    """Loads batches in processes of its own: those of grain's ``mp_prefetch`` import JAX."""

    def __init__(self, source: _Inputs, workers: int):
        self._source = source
        self._pools = [start_worker(_take, source) for _ in range(workers)]

    def load(self, index: int) -> dict[str, np.ndarray]:
        """Returns the inputs of a batch; called by several threads at once."""
        if not self._pools:
            return self._source[int(index)]
        try:
            return self._pools[index % len(self._pools)].submit(_load, int(index)).result()
        except BrokenProcessPool as error:
            raise DataError(WORKER_DIED) from error

    def close(self) -> None:
        """Ends the processes, each after the batch that it is at."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown()


_source: _Inputs | None = None
"""What this process loads from, if it is a worker."""


def _take(source: _Inputs) -> None:
    global _source
    _source = source


def _load(index: int) -> dict[str, np.ndarray]:
    assert _source is not None
    return _source[index]
