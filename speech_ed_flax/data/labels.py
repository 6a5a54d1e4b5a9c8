"""The labels of every row in one flat array."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

IGNORED = -100
"""The label of a position that does not count."""


@dataclass(frozen=True)
class Labels:
    """Labels of rows of any length.

    Attributes:
        values: int32 ``[labels of all rows]``.
        starts: int64 ``[rows + 1]``: row ``i`` is ``values[starts[i]:starts[i + 1]]``.
    """

    values: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | np.ndarray]) -> "Labels":
        """Returns the labels of rows in order; each ends with the end of the text."""
        arrays = [np.asarray(row, np.int32).reshape(-1) for row in rows]
        lengths = np.array([len(array) for array in arrays], np.int64)
        values = np.concatenate(arrays) if arrays else np.empty(0, np.int32)
        return cls(values, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.values[self.starts[row] : self.starts[row + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Labels of each row, int64 ``[rows]``."""
        return np.diff(self.starts)

    def padded(self, rows: np.ndarray, width: int) -> np.ndarray:
        """Returns int32 ``[rows, width]``, filled up with ``IGNORED``; row -1 is empty."""
        padded = np.full((len(rows), width), IGNORED, np.int32)
        for target, row in zip(padded, rows.tolist(), strict=True):
            if row >= 0:
                labels = self[row]
                target[: len(labels)] = labels
        return padded

    def ctc_frames(self, silent: Sequence[int] = ()) -> np.ndarray:
        """Returns the fewest frames in which CTC can say each row, int64 ``[rows]``.

        Args:
            silent: labels that CTC does without, such as the end of the text.

        Every label needs a frame, and two equal neighbours a blank between them.
        """
        row = np.repeat(np.arange(len(self)), self.lengths)
        heard = ~np.isin(self.values, np.asarray(silent, np.int32))
        values, row = self.values[heard], row[heard]
        repeats = (values[1:] == values[:-1]) & (row[1:] == row[:-1])
        frames = np.bincount(row, minlength=len(self))
        return frames + np.bincount(row[1:][repeats], minlength=len(self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all labels."""
        parts = (self.values.astype("<i4"), self.starts.astype("<i8"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()
