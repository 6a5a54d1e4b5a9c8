"""Reads compiled HLO: what the devices exchange."""

import re
from collections import Counter
from collections.abc import Iterator
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
_SHAPE = re.compile(r"([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|body|condition)=%?([\w.-]+)")
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


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
            left += _calls(instruction, times, endless)
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


def _calls(
    instruction: _Instruction, times: int, endless: bool
) -> Iterator[tuple[str, int, bool]]:
    """Yields what an instruction calls, how often, and whether nobody knows how often."""
    if instruction.opcode.endswith(("-done", "-update")):  # the start did call it
        return
    if instruction.opcode == "while":
        turns = _TURNS.search(instruction.rest)
        times, endless = times * int(turns[1] if turns else 1), endless or turns is None
    for name in _CALLED.findall(instruction.rest):
        yield name, times, endless
    for group in _BRANCHES.findall(instruction.rest):
        for name in group.split(","):
            yield name.strip().lstrip("%"), times, endless


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
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        made -= given  # the result of a start holds the operand too
    return max(given, made)


def _bytes(shapes: str) -> int:
    """Returns the bytes of all arrays of a type; ``u32[]`` is a token of the runtime's own."""
    total = 0
    for kind, bits, sizes in _SHAPE.findall(shapes):
        if (kind, sizes) != ("u", ""):
            count = prod(int(size) for size in sizes.split(",") if size)
            total += count * (int(bits or 8) if kind != "token" else 0) // 8
    return total
