"""From settings to plans: the choice of rows, of shapes and of batches, in one call."""

from collections.abc import Sequence

import numpy as np

from speech_ed_flax.data.batches import BatchPlan, EvaluationPlan
from speech_ed_flax.data.buckets import Budget, plan_shapes, single_shape
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.selection import FrameCount, select_rows
from speech_ed_flax.data.settings import DataSettings
from speech_ed_flax.data.store import Store
from speech_ed_flax.errors import ConfigError


def plan_training(
    store: Store,
    labels: Labels,
    settings: DataSettings,
    multiple: int = 1,
    fixed_samples: int | None = None,
    ctc_frames: FrameCount | None = None,
    ctc_silent: Sequence[int] = (),
) -> BatchPlan:
    """Returns the endless plan of a training.

    Args:
        store: the rows.
        labels: of each row, the end of the text included.
        settings: limits, speeds, shapes and seed.
        multiple: of the rows of a batch: devices that share it, times its micro-batches.
        fixed_samples: length of every clip, for an encoder that hears no other.
        ctc_frames: of the encoder, if CTC is part of the loss.
        ctc_silent: labels that CTC does without.

    Raises:
        ConfigError: no row is left, or the budget does not hold ``multiple`` rows.
    """
    if fixed_samples is not None and settings.max_seconds * store.rate > fixed_samples:
        raise ConfigError(
            f"max_seconds={settings.max_seconds} is more than the model hears: use "
            f"{fixed_samples / store.rate:g}."
        )
    selection = select_rows(store.lengths, labels, settings, store.rate, ctc_frames, ctc_silent)
    rows, speeds = np.nonzero(selection.allowed)
    counts = labels.lengths[rows]
    budget = _budget(settings, store.rate, multiple)
    if fixed_samples is not None:
        shapes = single_shape(fixed_samples, counts, budget)
    else:
        weights = 1 / selection.allowed.sum(axis=1)[rows]
        shapes = plan_shapes(selection.samples[rows, speeds], counts, budget, weights)
    return BatchPlan(selection, shapes, settings.seed)


def plan_evaluation(
    store: Store,
    labels: Labels,
    settings: DataSettings,
    multiple: int = 1,
    fixed_samples: int | None = None,
) -> EvaluationPlan:
    """Returns the plan of an evaluation: every row once, whatever the limits of the training.

    Args:
        store: the rows.
        labels: of each row.
        settings: how large batches are, and how many shapes they have.
        multiple: of the rows of a batch.
        fixed_samples: length of every clip, for an encoder that hears no other.

    Raises:
        ConfigError: there is no row, one has no sound or more than the model hears, or the budget
            does not hold ``multiple`` of the longest.
    """
    if len(store) == 0 or store.lengths.min() == 0:
        raise ConfigError("an evaluation needs rows, and sound in each: leave empty ones out.")
    longest = int(np.argmax(store.lengths))
    if fixed_samples is not None and store.lengths[longest] > fixed_samples:
        raise ConfigError(
            f"row {store.ids[longest]} has {store.durations[longest]:.1f} s, and the model hears "
            f"{fixed_samples / store.rate:g} s: leave it out or split it."
        )
    budget = _budget(settings, store.rate, multiple)
    if fixed_samples is not None:
        shapes = single_shape(fixed_samples, labels.lengths, budget)
    else:
        shapes = plan_shapes(store.lengths, labels.lengths, budget)
    return EvaluationPlan(store.lengths, labels.lengths, shapes)


def _budget(settings: DataSettings, rate: int, multiple: int) -> Budget:
    return Budget(
        samples=int(settings.batch_seconds * rate),
        shapes=settings.shapes,
        multiple=multiple,
        rows=settings.max_rows,
        sample_multiple=settings.sample_multiple,
        label_multiple=settings.label_multiple,
    )
