"""Which rows each batch holds: of an endless training, and of one evaluation.

A plan is a pure function of lengths, shapes and seed. Every process computes the whole of it and
loads its part of each batch, so all agree on the shape of each step, however many processes there
are; and the number of a step is all that has to be kept to go on from it.
"""

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np

from speech_ed_flax.data.buckets import Shape, assign
from speech_ed_flax.data.dealing import Epoch, batches_of, deal, padding
from speech_ed_flax.data.selection import Selection
from speech_ed_flax.errors import ConfigError

EMPTY = -1
"""The row of a batch that has no row left for its place."""


@dataclass(frozen=True)
class PlannedBatch:
    """One batch over all processes.

    Attributes:
        shape: its sizes.
        rows: int64 ``[shape.rows]``, or ``EMPTY``; empty ones come last.
        speeds: float64 ``[shape.rows]``.
        samples: int64 ``[shape.rows]``, of each row at its speed; 0 for empty ones.
        epoch: that it belongs to.
    """

    shape: Shape
    rows: np.ndarray
    speeds: np.ndarray
    samples: np.ndarray
    epoch: int = 0


@runtime_checkable
class Plan(Protocol):
    """What a loader needs of a plan: batches by number, and how many there are."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int) -> PlannedBatch: ...


@dataclass(frozen=True)
class BatchPlan:
    """The batches of a training, without end.

    Every epoch draws a speed for each row, shuffles the rows, deals them to the shapes, and
    shuffles the batches. The last batch of a shape is filled up with empty rows: each row is in an
    epoch exactly once.

    Attributes:
        selection: the rows and their lengths.
        shapes: shortest first.
        seed: of order and speeds.

    Raises:
        ConfigError: a row that may be drawn fits no shape.
    """

    selection: Selection
    shapes: tuple[Shape, ...]
    seed: int = 0
    _starts: list[int] = field(default_factory=lambda: [0], init=False, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __post_init__(self):
        unfit = self._buckets_of_speeds == len(self.shapes)
        if np.any(unfit & self.selection.allowed):
            raise ConfigError(f"{int(unfit.any(axis=1).sum())} rows fit none of {self.shapes}.")

    def __len__(self) -> int:
        return 2**48  # endless; what counts steps needs a number

    def __getitem__(self, step: int) -> PlannedBatch:
        """Returns the batch of a step; any step, in any order."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step}")
        while self._starts[-1] <= step:
            self.first_step(len(self._starts))
        number = bisect_right(self._starts, step) - 1
        epoch, at = self.epoch(number), step - self._starts[number]
        rows, shape = epoch.rows[at], self.shapes[epoch.buckets[at]]
        speeds = np.take(self.selection.speeds, epoch.choices[rows])
        return _filled(
            shape, rows, speeds, self.selection.samples[rows, epoch.choices[rows]], number
        )

    def first_step(self, epoch: int) -> int:
        """Returns the number of an epoch's first step; epochs differ a little in their length."""
        with self._lock:
            while len(self._starts) <= epoch:
                self._starts.append(self._starts[-1] + self._batches_of(len(self._starts) - 1))
        return self._starts[epoch]

    def epoch(self, number: int) -> Epoch:
        """Returns the batches of an epoch; the last two asked for are kept."""
        return self._epochs(number)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that the plan follows from, and of its first epoch.

        The first epoch stands for the random numbers, which another numpy could draw differently.
        """
        first = self.epoch(0)
        arrays = (self.selection.samples, self.selection.allowed, self.selection.labels)
        parts = [repr((self.selection.speeds, self.shapes, self.seed)).encode()]
        parts += [np.ascontiguousarray(array, "<i8").tobytes() for array in arrays]
        parts += [first.buckets.astype("<i8").tobytes(), first.choices.astype("<i8").tobytes()]
        parts += [rows.astype("<i8").tobytes() for rows in first.rows]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def padding(self, epoch: int = 0) -> float:
        """Returns the share of an epoch's samples that are padding or in empty rows."""
        planned = self.epoch(epoch)
        rows = self._kept
        return padding(self.selection.samples[rows, planned.choices[rows]], planned, self.shapes)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out what is kept between calls, which is quickly computed again."""
        return {"selection": self.selection, "shapes": self.shapes, "seed": self.seed}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.__dict__.update(state, _starts=[0], _lock=threading.Lock())

    @cached_property
    def _kept(self) -> np.ndarray:
        return np.flatnonzero(self.selection.allowed.any(axis=1))

    @cached_property
    def _buckets_of_speeds(self) -> np.ndarray:
        """The shape of every row at every speed, int64 ``[rows, speeds]``."""
        columns = self.selection.samples.T
        buckets = [assign(samples, self.selection.labels, self.shapes) for samples in columns]
        return np.stack(buckets, axis=1)

    def _draw(self, epoch: int) -> tuple[np.random.Generator, np.ndarray]:
        """Draws the speed of every row, each of the allowed ones equally often."""
        random = np.random.default_rng([self.seed, epoch])
        allowed = self.selection.allowed
        nth = np.floor(random.random(len(allowed)) * allowed.sum(axis=1))  # of the allowed ones
        choices = np.argmax(np.cumsum(allowed, axis=1) > nth[:, None], axis=1)
        return random, choices

    def _batches_of(self, epoch: int) -> int:
        _, choices = self._draw(epoch)
        buckets = self._buckets_of_speeds[self._kept, choices[self._kept]]
        counts = np.bincount(buckets, minlength=len(self.shapes)).tolist()
        return batches_of(counts, self.shapes)

    @cached_property
    def _epochs(self) -> Any:
        return lru_cache(maxsize=2)(self._plan_epoch)

    def _plan_epoch(self, epoch: int) -> Epoch:
        random, choices = self._draw(epoch)
        order = random.permutation(self._kept)
        rows, buckets = deal(order, self._buckets_of_speeds[order, choices[order]], self.shapes)
        shuffled = random.permutation(len(rows))
        return Epoch([rows[index] for index in shuffled], buckets[shuffled], choices)


@dataclass(frozen=True)
class EvaluationPlan:
    """Every row once, the shortest first, at its own speed.

    Attributes:
        samples: int64 ``[rows]``.
        labels: int64 ``[rows]``.
        shapes: shortest first.

    Raises:
        ConfigError: a row fits no shape.
    """

    samples: np.ndarray
    labels: np.ndarray
    shapes: tuple[Shape, ...]

    def __post_init__(self):
        unfit = assign(self.samples, self.labels, self.shapes) == len(self.shapes)
        if unfit.any():
            raise ConfigError(f"row {np.argmax(unfit)} fits none of {self.shapes}.")

    def __len__(self) -> int:
        return len(self._epoch.rows)

    def __getitem__(self, step: int) -> PlannedBatch:
        """Returns the batch of a step."""
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of {len(self)}")
        rows, shape = self._epoch.rows[step], self.shapes[self._epoch.buckets[step]]
        return _filled(shape, rows, np.ones(len(rows)), self.samples[rows], 0)

    def padding(self) -> float:
        """Returns the share of samples that are padding or in empty rows."""
        return padding(self.samples, self._epoch, self.shapes)

    @cached_property
    def _epoch(self) -> Epoch:
        buckets = assign(self.samples, self.labels, self.shapes)
        order = np.argsort(self.samples, kind="stable")
        rows, of_batches = deal(order, buckets[order], self.shapes)
        return Epoch(rows, of_batches, np.zeros(len(order), np.int64))


def _filled(
    shape: Shape, rows: np.ndarray, speeds: np.ndarray, samples: np.ndarray, epoch: int
) -> PlannedBatch:
    missing = (0, shape.rows - len(rows))
    return PlannedBatch(
        shape,
        np.pad(rows, missing, constant_values=EMPTY),
        np.pad(speeds.astype(np.float64), missing, constant_values=1.0),
        np.pad(samples, missing),
        epoch,
    )
