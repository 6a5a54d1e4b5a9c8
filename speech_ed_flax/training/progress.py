"""What a training knows of itself beside its state."""

from dataclasses import dataclass


@dataclass
class Progress:
    """Part of every checkpoint.

    Attributes:
        step: batches seen: also where the data goes on.
        plan: digest of the plan of batches.
        evaluated: the last step that was judged.
        best: the best value of what the training is judged by.
        best_step: when that was.
        stale: evaluations since then.
    """

    step: int = 0
    plan: str = ""
    evaluated: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0

    def judged(self, step: int, value: float | None, lower_is_better: bool) -> None:
        """Takes note of an evaluation; ``value`` is None where it was no number."""
        self.evaluated = step
        better = value is not None and (
            self.best is None or (value < self.best if lower_is_better else value > self.best)
        )
        self.stale = 0 if better else self.stale + 1
        if better:
            self.best, self.best_step = value, step
