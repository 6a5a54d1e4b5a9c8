"""Reads compiled HLO: what the devices exchange."""

import re
from collections import Counter
from dataclasses import dataclass
from math import prod

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (\(?[a-z0-9]+\[.*?) ([a-z][\w-]*)\((.*)$")
_SHAPE = re.compile(r"[a-z]+(\d*)[a-z0-9]*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|condition)=%?([\w.-]+)")
_APPLIED = re.compile(r"to_apply=%?([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONDITION = re.compile(r"condition=%?([\w.-]+)")
_NUMBER = re.compile(r"^[su]\d+\[\]")


@dataclass(frozen=True)
class Exchange:
    """All exchanges of a kind in a program.

    Attributes:
        kind: one of ``KINDS``.
        endless: whether they are in a loop that ends when it may, such as that over the tokens of
            a search: ``count`` and ``bytes`` are then of one turn.
        count: how many there are.
        bytes: of the arrays that every device gathers, reduces or passes on.
    """

    kind: str
    endless: bool
    count: int
    bytes: int


@dataclass(frozen=True)
class _Instruction:
    name: str
    result: str
    opcode: str
    rest: str


def find_exchanges(text: str) -> tuple[Exchange, ...]:
    """Returns what a compiled program exchanges, loops of known length counted in full.

    Args:
        text: of the compiled program.
    """
    computations, entry = _computations(text)
    counts: Counter[tuple[str, bool]] = Counter()
    sizes: Counter[tuple[str, bool]] = Counter()
    left = [(entry, 1, False)]
    while left:
        name, times, endless = left.pop()
        of = computations[name]
        for instruction in of.values():
            turns = _turns(instruction, computations) if instruction.opcode == "while" else 1
            for called in _called(instruction):
                left.append((called, times * (turns or 1), endless or turns is None))
            kind = _kind(instruction, name)
            if kind is not None:
                counts[kind, endless] += times
                sizes[kind, endless] += times * _payload(instruction, of)
    return tuple(Exchange(*key, counts[key], sizes[key]) for key in sorted(counts))


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Returns the instructions of every computation by name, and which computation is the entry."""
    found: dict[str, dict[str, _Instruction]] = {}
    current: dict[str, _Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = found.setdefault(match[2], {})
            entry = match[2] if match[1] else entry
        elif match := _INSTRUCTION.match(line):
            current[match[1]] = _Instruction(*match.groups())
    return found, entry


def _called(instruction: _Instruction) -> list[str]:
    """Returns the computations that an instruction runs."""
    if instruction.opcode.endswith(("-done", "-update")):  # the start did run it
        return []
    names = _CALLED.findall(instruction.rest)
    if instruction.opcode == "call":
        names += _APPLIED.findall(instruction.rest)
    for group in _BRANCHES.findall(instruction.rest):
        names += [name.strip().lstrip("%") for name in group.split(",")]
    return names


def _turns(loop: _Instruction, computations: dict[str, dict[str, _Instruction]]) -> int | None:
    """Returns how often a loop runs; None if the program alone does not say.

    XLA:TPU does not write it down, but counts up to a constant: that is what ``lax.scan`` becomes.
    """
    if known := _TURNS.search(loop.rest):
        return int(known[1])
    condition = _CONDITION.search(loop.rest)
    asked = computations[condition[1]].values() if condition else ()
    constants = [one for one in asked if one.opcode == "constant" and _NUMBER.match(one.result)]
    others = [one for one in asked if one.opcode not in ("constant", "parameter")]
    counts = [one.opcode for one in others] == ["get-tuple-element", "compare"]
    if not (counts and len(constants) == 1 and "direction=LT" in others[1].rest):
        return None
    return int(constants[0].rest.partition(")")[0])


def _kind(instruction: _Instruction, computation: str) -> str | None:
    kind = instruction.opcode.removesuffix("-start")
    if kind not in KINDS:
        return None
    # On TPU a reduce-scatter is a fusion of an all-reduce and a slice.
    return "reduce-scatter" if computation.startswith("all-reduce-scatter") else kind


def _payload(instruction: _Instruction, of: dict[str, _Instruction]) -> int:
    operands = re.findall(r"%([\w.-]+)", instruction.rest.partition(")")[0])
    given = sum(_bytes(of[name].result) for name in operands if name in of)
    made = _bytes(instruction.result)
    if instruction.opcode.startswith("collective-permute"):
        return given
    if instruction.opcode == "all-gather-start":
        made -= given  # its result holds the operand too
    return max(given, made)


def _bytes(shapes: str) -> int:
    """Returns the bytes of all arrays of a type."""
    total = 0
    for bits, sizes in _SHAPE.findall(shapes):
        total += prod(int(size) for size in sizes.split(",") if size) * int(bits or 8) // 8
    return total
