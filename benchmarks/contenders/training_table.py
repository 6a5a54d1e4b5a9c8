"""The Markdown tables that are made of measured training steps."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from contenders.table import heading, markdown, number, ratios, spread
from contenders.trainings import LABELS

LEGEND = (
    "One step of AdamW: forward, backward, clipping, update. base: wav2vec2-base + BART-base "
    f"decoder (6 layers, width 768, vocabulary 50,265), {LABELS} labels, dropout on. stable: the "
    "same with the layer-norm encoder, the only one that Flax 4.57 runs. Looped: `scan=True`. "
    "Memory kept: with glibc's allocator set as `speech-ed-flax train` sets it. Cells: median "
    "(minimum to maximum); ratios are of the same round. The losses of three steps without dropout "
    "are equal."
)
_HEADS = (
    "training",
    "contender",
    "seconds a step",
    "**ours / theirs**",
    "audio s/s",
    "first step, s",
    "peak GB",
    "ours / theirs",
)


def render(documents: Sequence[dict[str, Any]]) -> str:
    """Returns everything that the documents hold as Markdown."""
    trainings = [training for document in documents for training in document["trainings"]]
    rows = [row for training in trainings for row in _rows(training)]
    return f"{heading(documents)}\n\n{LEGEND}\n\n{markdown(_HEADS, rows)}\n"


def _rows(training: dict[str, Any]) -> list[list[str]]:
    contenders = training["contenders"]
    ours = next(iter(contenders.values()))
    rows = []
    for name, one in contenders.items():
        ratio = spread(ratios(ours["seconds"], one["seconds"]))
        cells = [
            training["name"],
            name,
            str(spread(one["seconds"])),
            f"**{number(ratio.middle)}** ({ratio.range})",
            number(training["seconds"] / median(one["seconds"])),
            number(one["first"]),
            number(one["peak"] / 1e9),
            number(ours["peak"] / one["peak"]),
        ]
        if one is ours:
            cells[3] = cells[7] = ""
        rows.append(cells)
    return rows
