"""Loads the batches of a plan ahead of their use, in processes or in a thread."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from speech_ed_flax.audio.features import Features
from speech_ed_flax.data.batches import EMPTY, Plan
from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.data.crew import WHOLE, Crew, Inputs, Part
from speech_ed_flax.data.extras import require
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.store import Store
from speech_ed_flax.errors import ConfigError


@dataclass(frozen=True)
class LoadedBatch:
    """One part of a batch.

    Attributes:
        step: its number in the plan.
        epoch: that it belongs to.
        shape: sizes of the whole batch.
        inputs: float32 ``[rows, samples]`` or ``[rows, frames, mels]`` (Whisper's ``[rows, mels,
            frames]``).
        mask: bool ``[rows, samples or frames]``; empty rows have none.
        labels: int32 ``[rows, labels]``; -100 is padding.
        rows: int64 ``[rows]``, numbers in the store; -1 is empty.
        ids: names of the rows of the whole batch; ``""`` is empty.
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
        part: Part = WHOLE,
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
        source = Inputs(store, features, plan, start, part)
        self._crew = Crew(source, workers)
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
        everyone: list[int] = planned.rows.tolist()
        self._step += 1
        return LoadedBatch(
            step=self._step - 1,
            epoch=planned.epoch,
            shape=shape,
            inputs=loaded["inputs"],
            mask=loaded["mask"],
            labels=self._labels.padded(rows, shape.labels),
            rows=rows,
            ids=tuple(self._store.ids[row] if row != EMPTY else "" for row in everyone),
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
