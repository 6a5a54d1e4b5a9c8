"""What a plan finds out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.training.planning.collectives import Exchange

Program = Literal["train", "generate"]


@dataclass(frozen=True)
class Costs:
    """What a compiled program takes of every device.

    Attributes:
        arguments: bytes of parameters, optimizer state and batch.
        temporaries: bytes of what is computed on the way.
        peak: most bytes at once, arguments included.
        flops: of a step on one device; None where the compiler does not say. Loops count as one
            turn, such as that over the tokens of a search; only that over micro-batches is whole.
        exchanges: between the devices.
        seconds: that compiling took.
    """

    arguments: int
    temporaries: int
    peak: int
    flops: float | None
    exchanges: tuple[Exchange, ...]
    seconds: float


@dataclass(frozen=True)
class Finding:
    """What became of one program for one shape of batch.

    Attributes:
        program: "train" or "generate".
        shape: of the batch, over all devices.
        costs: None if it could not be compiled.
        refusal: a sentence saying why it cannot run; None if it can.
    """

    program: Program
    shape: Shape
    costs: Costs | None
    refusal: str | None


@dataclass(frozen=True)
class Report:
    """What a plan found out.

    Attributes:
        topology: its name.
        devices: how many there are.
        memory: bytes of each; None if it is not known.
        mesh: sizes of the axes by name.
        findings: one for each program and shape.
    """

    topology: str
    devices: int
    memory: int | None
    mesh: dict[str, int]
    findings: Sequence[Finding]
