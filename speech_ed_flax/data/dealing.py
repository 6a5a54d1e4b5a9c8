"""Rows dealt to batches of their shapes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speech_ed_flax.data.buckets import Shape


@dataclass(frozen=True)
class Epoch:
    """The batches of one pass over the rows, in order.

    Attributes:
        rows: int64 ``[batches]`` of int64 ``[rows of a batch]``.
        buckets: int64 ``[batches]``, the shape of each.
        choices: int64 ``[all rows]``, the speed of each row, as a column of the selection.
    """

    rows: Sequence[np.ndarray]
    buckets: np.ndarray
    choices: np.ndarray


def deal(
    order: np.ndarray, buckets: np.ndarray, shapes: Sequence[Shape]
) -> tuple[list[np.ndarray], np.ndarray]:
    """Deals rows to batches of their shapes, in order; only the last batch of a shape is short.

    Args:
        order: int64 ``[rows]``, numbers of rows.
        buckets: int64 ``[rows]``, the shape of each.
        shapes: shortest first.

    Returns:
        The rows of each batch, and its shape, int64 ``[batches]``.
    """
    members = [order[buckets == bucket] for bucket in range(len(shapes))]
    moves = _moves([len(rows) for rows in members], shapes)
    for bucket, longer in moves:
        rest = len(members[bucket]) % shapes[bucket].rows
        members[longer] = np.concatenate([members[longer], members[bucket][-rest:]])
        members[bucket] = members[bucket][:-rest]
    rows: list[np.ndarray] = []
    of_batches: list[int] = []
    for bucket, shape in enumerate(shapes):
        mine = members[bucket]
        batches = [mine[at : at + shape.rows] for at in range(0, len(mine), shape.rows)]
        rows += batches
        of_batches += [bucket] * len(batches)
    return rows, np.array(of_batches, np.int64)


def batches_of(counts: Sequence[int], shapes: Sequence[Shape]) -> int:
    """Returns how many batches ``deal`` makes of so many rows of each shape."""
    batches = [-(-count // shape.rows) for count, shape in zip(counts, shapes, strict=True)]
    return sum(batches) - len(_moves(counts, shapes))


def _moves(counts: Sequence[int], shapes: Sequence[Shape]) -> list[tuple[int, int]]:
    """Returns the moves, in order, by which short batches vanish.

    All batches cost about the same, however few of their rows are real. So the rows that do not
    fill a batch of their shape move to a longer shape, if its own short batch has room for all.

    Args:
        counts: rows of each shape.
        shapes: shortest first.

    Returns:
        Pairs of a shape and the longer one to which its last rows go.
    """
    rest = [count % shape.rows for count, shape in zip(counts, shapes, strict=True)]
    moves = []
    for bucket, shape in enumerate(shapes):
        for longer in range(bucket + 1, len(shapes)):
            room = shapes[longer].rows - rest[longer]
            if rest[bucket] and rest[longer] and rest[bucket] <= room:
                if shapes[longer].labels < shape.labels:
                    continue
                moves.append((bucket, longer))
                rest[longer] = (rest[longer] + rest[bucket]) % shapes[longer].rows
                rest[bucket] = 0
    return moves


def padding(samples: np.ndarray, epoch: Epoch, shapes: Sequence[Shape]) -> float:
    """Returns the share of the samples of batches that is not among ``samples`` of rows."""
    sizes = np.array([shape.rows * shape.samples for shape in shapes])
    return 1 - float(samples.sum() / sizes[epoch.buckets].sum())
