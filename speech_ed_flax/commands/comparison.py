"""How two sets of arrays differ."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Difference:
    """How one array differs from another.

    Attributes:
        name: of both.
        largest: the largest difference of two numbers; NaN if one of them is, and infinite if there
            is but one array, or another shape.
        relative: the same in units of the largest number.
        note: what else there is to say.
    """

    name: str
    largest: float
    relative: float
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns the fields, with null for what is no finite number."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def compare_arrays(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> list[Difference]:
    """Returns the arrays that are not equal bit for bit, those that differ most first."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        left, right = first.get(name), second.get(name)
        if left is None or right is None:
            which = "second" if left is None else "first"
            found.append(Difference(name, math.inf, math.inf, f"only in the {which}"))
        elif _kind(left) != _kind(right):
            note = f"{_kind(left)} against {_kind(right)}"
            found.append(Difference(name, math.inf, math.inf, note))
        elif left.tobytes() != right.tobytes():
            found.append(_difference(name, left, right))
    return sorted(found, key=lambda difference: -_order(difference.largest))


def _difference(name: str, first: np.ndarray, second: np.ndarray) -> Difference:
    left, right = first.astype(np.float64), second.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        largest = float(np.max(np.abs(left - right)))
        relative = largest / float(max(np.max(np.abs(left)), np.max(np.abs(right))))
    return Difference(name, largest, relative if largest else 0.0)


def _kind(array: np.ndarray) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _order(value: float) -> float:
    return math.inf if math.isnan(value) else value
