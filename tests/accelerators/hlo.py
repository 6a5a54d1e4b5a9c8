"""Reads compiled HLO: what happens inside its loops, at every turn."""

import re
from dataclasses import dataclass
from math import prod

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = (\(?[a-z0-9]+\[.*?) ([a-z][\w-]*)\(")
_SHAPE = re.compile(r"[a-z]+[0-9]*\[([0-9,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.-]+)")
_CALLED_SET = re.compile(r"(?:branch_computations|called_computations|calls)=\{([^}]*)\}")


@dataclass(frozen=True)
class Instruction:
    """One instruction: its opcode, how many numbers each of its results holds, and its line."""

    opcode: str
    sizes: tuple[int, ...]
    line: str


def in_loops(text: str) -> list[Instruction]:
    """Returns the instructions of all while bodies and of what they call."""
    computations = _computations(text)
    bodies = set(re.findall(r" while\(.*body=%?([\w.-]+)", text))
    conditions = set(re.findall(r" while\(.*condition=%?([\w.-]+)", text))
    reached, left = set(), list(bodies | conditions)
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += [called for line in computations[name] for called in _called(line)]
    return [
        Instruction(match[2], _sizes(match[1]), line.strip())
        for name in sorted(reached)
        for line in computations[name]
        if (match := _INSTRUCTION.match(line))
    ]


def _computations(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = found.setdefault(match[1], [])
        else:
            lines.append(line)
    return found


def _called(line: str) -> list[str]:
    names = _CALLED.findall(line)
    for group in _CALLED_SET.findall(line):
        names += [name.strip().lstrip("%") for name in group.split(",")]
    return names


def _sizes(text: str) -> tuple[int, ...]:
    shapes = (sizes.split(",") for sizes in _SHAPE.findall(text))
    return tuple(prod(int(size) for size in shape if size) for shape in shapes)
