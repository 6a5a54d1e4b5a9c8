"""The few static shapes that batches have, chosen so that they hold little padding."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speech_ed_flax.errors import ConfigError

_MOST_LEVELS = 512  # lengths between which shapes are chosen: the search takes their square


@dataclass(frozen=True, order=True)
class Shape:
    """Sizes of one kind of batch, over all devices.

    Attributes:
        samples: of each row, padding included.
        labels: of each row, padding included.
        rows: of a batch.
    """

    samples: int
    labels: int
    rows: int


@dataclass(frozen=True)
class Budget:
    """How large batches may be.

    Attributes:
        samples: most samples of a batch, padding included.
        shapes: most shapes.
        multiple: rows of a batch are a multiple of this: of the devices that share it, times the
            micro-batches that it is split into.
        rows: most rows of a batch; None for no limit.
        sample_multiple: samples of a shape are a multiple of this.
        label_multiple: labels of a shape are a multiple of this.
    """

    samples: int
    shapes: int = 8
    multiple: int = 1
    rows: int | None = None
    sample_multiple: int = 1_600
    label_multiple: int = 8

    def rows_of(self, samples: np.ndarray) -> np.ndarray:
        """Returns how many rows of so many samples fit, a multiple of ``multiple``; 0 if none."""
        rows = self.samples // samples
        if self.rows is not None:
            rows = np.minimum(rows, self.rows)
        return rows // self.multiple * self.multiple


def plan_shapes(
    samples: np.ndarray, labels: np.ndarray, budget: Budget, weights: np.ndarray | None = None
) -> tuple[Shape, ...]:
    """Returns the shapes, shortest first, with which an epoch computes the fewest samples.

    Lengths are rounded up to levels, and dynamic programming finds the best set of levels: its cost
    is exact, padding of rows and the empty rows of each shape's last batch included.

    Args:
        samples: int64 ``[rows]``; none is 0.
        labels: int64 ``[rows]``.
        budget: the limits.
        weights: how often each row is expected in an epoch, ``[rows]``; once if omitted.

    Raises:
        ConfigError: the budget does not hold ``multiple`` rows of the longest length.
    """
    quantum = _quantum(int(samples.max()), budget.sample_multiple)
    levels, level = np.unique(-(-samples // quantum), return_inverse=True)
    levels = levels * quantum
    rows = budget.rows_of(levels)
    if rows[-1] == 0:
        raise ConfigError(_too_small(budget, int(levels[-1])))
    counts = np.bincount(level, weights=weights, minlength=len(levels))
    edges = _best_edges(counts, levels, rows, budget.shapes)
    bucket = np.searchsorted(edges, level)
    most = np.zeros(len(edges), np.int64)
    np.maximum.at(most, bucket, labels)
    widths = _round_up(np.maximum(most, 1), budget.label_multiple)
    sizes = zip(levels[edges].tolist(), widths.tolist(), rows[edges].tolist(), strict=True)
    return tuple(Shape(*size) for size in sizes)


def single_shape(samples: int, labels: np.ndarray, budget: Budget) -> tuple[Shape, ...]:
    """Returns the one shape of an encoder that hears clips of one length, as Whisper does.

    Args:
        samples: that every clip is padded to.
        labels: int64 ``[rows]``.
        budget: the limits.

    Raises:
        ConfigError: the budget does not hold ``multiple`` rows.
    """
    rows = int(budget.rows_of(np.array([samples]))[0])
    if rows == 0:
        raise ConfigError(_too_small(budget, samples))
    width = _round_up(np.maximum(labels.max(keepdims=True), 1), budget.label_multiple)
    return (Shape(samples, int(width[0]), rows),)


def assign(samples: np.ndarray, labels: np.ndarray, shapes: Sequence[Shape]) -> np.ndarray:
    """Returns the first shape that holds each row, int64 ``[rows]``; ``len(shapes)`` if none.

    Args:
        samples: int64 ``[rows]``.
        labels: int64 ``[rows]``.
        shapes: shortest first.
    """
    bucket = np.full(len(samples), len(shapes), np.int64)
    for index in reversed(range(len(shapes))):
        fits = (samples <= shapes[index].samples) & (labels <= shapes[index].labels)
        bucket[fits] = index
    return bucket


def _quantum(longest: int, multiple: int) -> int:
    """Returns the distance between levels, a multiple of ``multiple``."""
    return -(-longest // (_MOST_LEVELS * multiple)) * multiple


def _round_up(values: np.ndarray, multiple: int) -> np.ndarray:
    return -(-values // multiple) * multiple


def _too_small(budget: Budget, longest: int) -> str:
    needed = budget.multiple * longest
    if budget.rows is not None and budget.rows < budget.multiple:
        return f"max_rows={budget.rows} is less than the {budget.multiple} rows of any batch."
    return (
        f"batches of {budget.samples} samples do not hold {budget.multiple} rows of {longest}: "
        f"raise batch_seconds {needed / budget.samples:.2f} times, or lower max_seconds."
    )


def _best_edges(
    counts: np.ndarray, levels: np.ndarray, rows: np.ndarray, shapes: int
) -> np.ndarray:
    """Returns the indices of the levels at which shapes end; the last level is always one.

    ``costs[e]`` is the fewest samples computed for levels 0 to ``e``, ``e`` being an edge. With one
    shape more, the level ``s - 1`` before the last shape's first is an edge:
    ``costs[e] = min over s of costs'[s - 1] + batches(s, e) * rows[e] * levels[e]``.
    """
    total = np.concatenate([[0.0], np.cumsum(counts)])
    between = total[None, 1:] - total[:-1, None]  # [first, last] expected rows of these levels
    batches = np.ceil(np.round(between / rows, 6))
    last_cost = np.where(np.tri(len(levels), k=-1, dtype=bool), np.inf, batches * rows * levels)
    costs, choices = last_cost[0], []
    for _ in range(min(shapes, len(levels)) - 1):
        before = np.concatenate([[np.inf], costs[:-1]])
        options = before[:, None] + last_cost
        first = np.argmin(options, axis=0)
        better = options[first, np.arange(len(levels))] < costs
        choices.append(np.where(better, first, -1))
        costs = np.where(better, options[first, np.arange(len(levels))], costs)
    edges = [len(levels) - 1]
    for choice in reversed(choices):
        if choice[edges[-1]] >= 0:
            edges.append(int(choice[edges[-1]]) - 1)
    return np.array(edges[::-1])
