"""What a checkpoint says about itself: progress, metrics, and what makes it the best one."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speech_ed_flax.errors import CheckpointError

RECORD = Path("progress", "progress.json")
"""Where the record of a checkpoint is, inside its folder."""


@dataclass(frozen=True)
class Criterion:
    """What makes one checkpoint better than another.

    Attributes:
        metric: name of the metric.
        lower_is_better: whether 0 is good.
    """

    metric: str
    lower_is_better: bool = True

    def cost(self, metrics: Mapping[str, Any] | None) -> float | None:
        """Returns what is lower for better metrics; infinite for NaN, None without the metric."""
        value = (metrics or {}).get(self.metric)
        if value is None:
            return None
        cost = float(value) if self.lower_is_better else -float(value)
        return math.inf if math.isnan(cost) else cost


@dataclass(frozen=True)
class Record:
    """The part of a checkpoint that is JSON.

    Attributes:
        progress: as it was saved.
        metrics: of the checkpoint; None if it was not evaluated.
        criterion: by which the training chooses its best checkpoint, if it does.
    """

    progress: dict[str, Any]
    metrics: dict[str, Any] | None
    criterion: Criterion | None

    def to_json(self) -> dict[str, Any]:
        """Returns what ``read_record`` reads back."""
        criterion = self.criterion
        best_by = criterion and [criterion.metric, criterion.lower_is_better]
        return {"progress": self.progress, "metrics": self.metrics, "best_by": best_by}


def read_record(checkpoint: Path) -> Record:
    """Returns what a checkpoint says about itself.

    Raises:
        CheckpointError: naming the file, if it is missing or garbled.
    """
    path = checkpoint / RECORD
    try:
        fields = json.loads(path.read_bytes())
        metrics, best_by = fields["metrics"], fields["best_by"]
        return Record(
            progress=dict(fields["progress"]),
            metrics=None if metrics is None else dict(metrics),
            criterion=None if best_by is None else Criterion(str(best_by[0]), bool(best_by[1])),
        )
    except OSError as error:
        raise CheckpointError(f"{path}: it cannot be read, {error.strerror}.") from error
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path}: it is not the JSON that was written ({error}).") from error


def find_steps(folder: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, lowest first; unfinished ones are none."""
    if not folder.is_dir():
        return []
    names = [path.name for path in folder.iterdir() if path.is_dir()]
    return sorted(int(name) for name in names if name.isdecimal() and str(int(name)) == name)


def find_checkpoint(folder: Path, step: int) -> Path:
    """Returns the folder of one checkpoint.

    Raises:
        CheckpointError: naming those that there are, if it is not among them.
    """
    steps = find_steps(folder)
    if step not in steps:
        there = f"there are {', '.join(map(str, steps))}" if steps else "there is none"
        raise CheckpointError(f"{folder}: holds no checkpoint of step {step}; {there}.")
    return folder / str(step)


def read_costs(folder: Path, steps: Iterable[int], criterion: Criterion) -> dict[int, float]:
    """Returns how bad checkpoints are; those without the metric, or unreadable, are left out."""
    costs = {}
    for step in steps:
        try:
            cost = criterion.cost(read_record(folder / str(step)).metrics)
        except CheckpointError:
            continue
        if cost is not None:
            costs[step] = cost
    return costs


def rank(costs: Mapping[int, float]) -> list[int]:
    """Returns steps from best to worst; of equally good ones the first to get there leads."""
    return sorted(costs, key=lambda step: (costs[step], step))
