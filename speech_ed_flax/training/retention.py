"""Which checkpoints stay when a new one is there."""

from dataclasses import dataclass, field
from typing import Any

import orbax.checkpoint as ocp

from speech_ed_flax.training.records import rank


@dataclass
class Retention(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest checkpoints and the best ones.

    Orbax's own ``BestN`` knows metrics only by reading them when it opens a folder, which fails
    for good if one is garbled; and it has no place for NaN.

    Attributes:
        latest: how many of the newest stay.
        best: how many of the best stay.
        costs: how bad those with a metric are, by step; grows with the training.
    """

    latest: int
    best: int
    costs: dict[int, float] = field(default_factory=dict)

    def should_preserve(self, checkpoints: Any, *, context: Any) -> list[bool]:
        """Tells for each checkpoint whether it stays; the last one is being written."""
        current = checkpoints[-1].step
        steps = sorted(info.step for info in checkpoints if info.step <= current)
        known = {step: cost for step, cost in self.costs.items() if step in steps}
        kept = {*steps[-self.latest :], *rank(known)[: self.best]}
        # What claims to be of the future was put there by somebody else, who may take it away.
        return [info.step in kept or info.step > current for info in checkpoints]
