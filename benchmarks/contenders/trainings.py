"""Which training steps are measured, and by whom they are taken."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contenders.workloads import Entry, Workload

LABELS = 32
"""Of each utterance."""

VOCABULARY = 50265
"""Of BART; labels are drawn from it, without its special tokens."""

OPTIMIZER = {"learning_rate": 1e-5, "weight_decay": 0.01, "epsilon": 1e-8, "clip": 1.0}
"""AdamW with decay of all but biases and norms, and gradients clipped by their global norm."""

CHECKED = 3
"""Steps without dropout whose losses are compared: the later ones tell of the updates."""

TOLERANCES = {"float32": 1e-3, "bfloat16": 3e-2}
"""By which share the losses of contenders may differ."""

ENTRIES = {
    "ours": Entry("ours_training", {}, "float32"),
    "ours, looped": Entry("ours_training", {"scan": True}, "float32"),
    "PyTorch": Entry("pytorch_training", {}, "float32"),
    "PyTorch, memory kept": Entry("pytorch_training", {"kept": True}, "float32"),
    "Flax 4.57": Entry("flax457_training", {}, "float32"),
    "ours bf16": Entry("ours_training", {"precision": "bfloat16"}, "bfloat16"),
    "PyTorch autocast": Entry("pytorch_training", {"autocast": True}, "bfloat16"),
}


@dataclass(frozen=True)
class Training:
    """One line of the table.

    Attributes:
        model: "base" or "stable"; see ``materials``.
        seconds: of each sound.
        batch: sounds at a time.
        contenders: keys of ``ENTRIES``, in the order of a round.
    """

    model: str
    seconds: int
    batch: int
    contenders: tuple[str, ...]

    @property
    def name(self) -> str:
        """Returns what ``--only`` matches and the table shows."""
        return f"{self.model}, {self.batch} x {self.seconds} s"

    @property
    def workload(self) -> Workload:
        """Returns what ``materials`` makes the model and the sounds for."""
        return Workload(self.model, "train", self.seconds, self.batch)


def trainings(bfloat16: bool) -> tuple[Training, ...]:
    """Returns the steps to measure; those in bfloat16 only where the processor has it.

    Not more than three contenders at a time: each takes up to 6 GB.
    """
    chosen = [
        Training("base", 5, 2, ("ours", "PyTorch", "PyTorch, memory kept")),
        Training("base", 5, 2, ("ours", "ours, looped")),
        Training("stable", 5, 2, ("ours", "PyTorch", "Flax 4.57")),
    ]
    if bfloat16:
        chosen.insert(1, Training("base", 5, 2, ("ours bf16", "PyTorch autocast")))
    return tuple(chosen)


def draw_labels(scratch: Path, training: Training) -> Path:
    """Returns the file of a batch's labels, made if need be."""
    path = scratch / training.model / f"labels-{training.batch}.npy"
    if not path.exists():
        shape = (training.batch, LABELS)
        np.save(path, np.random.default_rng(1).integers(5, VOCABULARY, shape))
    return path


def request_for(material: dict[str, str], labels: Path, dropout: bool) -> dict[str, Any]:
    """Returns what ``load`` of a contender is asked for."""
    return material | {"labels": str(labels), "dropout": dropout, "optimizer": OPTIMIZER}
