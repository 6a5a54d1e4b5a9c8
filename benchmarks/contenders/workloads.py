"""What is measured, and who is asked to do it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple


class Entry(NamedTuple):
    """One way to run a model: a file of this folder, its options, and whom it is compared with."""

    module: str
    options: dict[str, Any]
    precision: str


ENTRIES = {
    "ours": Entry("ours", {"dtype": "float32"}, "float32"),
    "PyTorch": Entry("pytorch", {}, "float32"),
    "PyTorch compiled": Entry("pytorch", {"compiled": True}, "float32"),
    "Flax 4.57": Entry("flax457", {}, "float32"),
    "faster-whisper": Entry("faster_whisper", {"compute_type": "float32"}, "float32"),
    "ours bf16": Entry("ours", {"dtype": "bfloat16"}, "bfloat16"),
    "PyTorch bf16": Entry("pytorch", {"dtype": "bfloat16"}, "bfloat16"),
    "PyTorch autocast": Entry("pytorch", {"autocast": True}, "bfloat16"),
    "ours int8": Entry("ours", {"weights": "int8"}, "int8"),
    "faster-whisper int8": Entry("faster_whisper", {"compute_type": "int8"}, "int8"),
}
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Of a weight, by precision."""

_SETTINGS = {
    "greedy": {"num_beams": 1, "do_sample": False},
    "beam 5": {"num_beams": 5, "do_sample": False},
    "sampling": {"num_beams": 1, "do_sample": True, "top_k": 50},
}
_RIVALS = {
    "base": ("PyTorch", "PyTorch bf16", "PyTorch autocast"),
    "stable": ("Flax 4.57",),
    "whisper": tuple(name for name in ENTRIES if not re.search("ours|compiled|autocast", name)),
}
_LONGEST = {"base": 160, "stable": 40, "whisper": 480}
"""Seconds of sound in one batch, at most: above, ten warm contenders do not fit in 24 GB."""


@dataclass(frozen=True)
class Workload:
    """One line of the table.

    Attributes:
        model: "base", "stable" or "whisper"; see ``materials``.
        task: "encoder", "transcribe" or a key of the settings of generation.
        seconds: of each sound.
        batch: sounds at a time.
        tokens: how many are forced; None generates until the model ends, as Whisper does.
    """

    model: str
    task: str
    seconds: int
    batch: int
    tokens: int | None = field(default=64, kw_only=True)

    @property
    def name(self) -> str:
        """Returns what ``--only`` matches and the table shows."""
        few = f", {self.tokens} tokens" if self.tokens not in (None, 64) else ""
        return f"{self.model} {self.task}, {self.seconds} s, batch {self.batch}{few}"

    @property
    def settings(self) -> dict[str, Any]:
        """Returns the settings of generation, by transformers' names; none for an encoder."""
        if self.task not in _SETTINGS:
            return {}
        forced = self.tokens and {"min_new_tokens": self.tokens, "max_new_tokens": self.tokens}
        return _SETTINGS[self.task] | (forced or {})

    @property
    def is_exact(self) -> bool:
        """Tells whether contenders of one precision must give the same tokens."""
        return self.task in ("greedy", "beam 5")

    @property
    def contenders(self) -> tuple[str, ...]:
        """Returns keys of ``ENTRIES``, in the order of a round."""
        if self.task == "transcribe":
            return ("ours", "PyTorch", "faster-whisper")
        compiled = ("PyTorch compiled",) if (self.model, self.task) == ("base", "encoder") else ()
        quantised = ("ours int8",) if self.model == "whisper" or self.task == "greedy" else ()
        everyone = {"ours", *_RIVALS[self.model], *compiled}
        if self.model != "stable":
            everyone |= {"ours bf16", *quantised}
        return tuple(name for name in ENTRIES if name in everyone)


FEW_TOKENS = Workload("base", "greedy", 10, 1, tokens=16)
"""Beside the same with 64 tokens it tells what one token takes."""


def targets() -> Iterator[Workload]:
    """Yields what the project has set itself targets for."""
    for model in ("base", "stable"):
        for task, batch in product(("encoder", "greedy", "beam 5"), (1, 4)):
            yield Workload(model, task, 10, batch)
        if model == "base":
            yield FEW_TOKENS
    for task in ("greedy", "beam 5"):
        yield Workload("whisper", task, 30, 1, tokens=None)


def full() -> Iterator[Workload]:
    """Yields every task, length and batch that fits."""
    yield FEW_TOKENS
    tasks = ("encoder", "greedy", "beam 5", "sampling")
    for model, task, seconds, batch in product(_RIVALS, tasks, (1, 10, 30), (1, 4, 16)):
        if seconds * batch <= _LONGEST[model] and (model != "whisper" or task != "sampling"):
            yield Workload(model, task, seconds, batch, tokens=None if model == "whisper" else 64)


PRESETS = {"targets": targets, "full": full}

COLD_START = Workload("whisper", "transcribe", 10, 1, tokens=None)
"""From nothing to the first transcript of a clip."""
