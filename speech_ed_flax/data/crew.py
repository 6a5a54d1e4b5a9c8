"""The processes that load batches, and what they load."""

import dataclasses
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from speech_ed_flax.audio.features import Features
from speech_ed_flax.data.batches import EMPTY, Plan
from speech_ed_flax.data.errors import DataError
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


WHOLE = Part()
"""All rows, for a process that is alone."""


class Inputs:
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


class Crew:
    """Loads batches in processes of its own: those of grain's ``mp_prefetch`` import JAX."""

    def __init__(self, source: Inputs, workers: int):
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
            pool.shutdown(cancel_futures=True)


_source: Inputs | None = None
"""What this process loads from, if it is a worker."""


def _take(source: Inputs) -> None:
    global _source
    _source = source


def _load(index: int) -> dict[str, np.ndarray]:
    assert _source is not None
    return _source[index]
