"""Contenders taking turns at a workload."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from contenders.crew import Crew, say
from contenders.process import ContenderError, Process
from contenders.workloads import ENTRIES, Entry, Workload

_REST = 0.3
"""Seconds between contenders: OpenMP's threads spin for up to 0.2 s after their work."""

_WHISPER_END = 50256
"""The end of English-only Whisper's text; its prompt lies above it."""

_READ_BYTES = 2**30
_SIDE = 4096


def measure(
    crew: Crew, workloads: list[Workload], materials: dict[str, Any], rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields each workload with the times of its contenders, started anew for every model.

    Args:
        crew: starts them.
        workloads: those of one model together.
        materials: of each workload; see ``materials``.
        rounds: times that each contender does the work, after a first time that warms it up.

    Yields:
        The fields of the workload, its name, and by contender ``first`` and ``seconds`` (of the
        first and the later times), ``peak`` (resident bytes), ``generated`` (tokens of all rows)
        and ``equal`` (rows whose tokens are those of the first contender, and rows). The last two
        are None for an encoder, and ``equal`` where tokens are drawn.
    """
    for _, group in groupby(workloads, key=lambda workload: workload.model):
        same_model = list(group)
        names = dict.fromkeys(name for workload in same_model for name in workload.contenders)
        started = {name: crew.start(name, ENTRIES[name]) for name in names}
        processes = {name: process for name, process in started.items() if process}
        for workload in same_model:
            say(workload.name)
            asked = {name: processes[name] for name in workload.contenders if name in processes}
            measured = _measure(workload, asked, materials[workload.name], rounds)
            yield asdict(workload) | {"name": workload.name, "contenders": measured}
        for process in processes.values():
            process.close()


def limits(crew: Crew, rounds: int) -> dict[str, Any]:
    """Returns how many bytes are read and floats multiplied, and the seconds of each time."""
    process = crew.start("limits", Entry("limits", {}, "float32"))
    if process is None:
        return {}
    amounts = {"read": _READ_BYTES, "multiply": 2 * _SIDE**3}
    sizes = {"read": _READ_BYTES, "multiply": _SIDE}
    found = {}
    for task, amount in amounts.items():
        process.ask("load", task=task, size=sizes[task])
        process.ask("run")
        seconds = [process.ask("run")["seconds"] for _ in range(max(rounds, 5))]
        found[task] = {"amount": amount, "seconds": seconds}
        say(f"{task}: {amount / min(seconds) / 1e9:.1f} G/s")
    process.close()
    return found


def _measure(
    workload: Workload, processes: dict[str, Process], material: dict[str, str], rounds: int
) -> dict[str, dict[str, Any]]:
    request = material | {"task": workload.task, "settings": workload.settings}
    measured, tokens = {}, {}
    for name, process in processes.items():
        try:
            process.ask("load", **request)
            measured[name] = {"first": process.ask("run")["seconds"], "seconds": []}
            tokens[name] = process.ask("tokens")["tokens"]
        except ContenderError as error:
            measured.pop(name, None)
            say(f"  {name} is left out: {error}.")
    for name, found in compared(workload, tokens).items():
        measured[name] |= found
        say(f"  {name}: first {measured[name]['first']:.2f} s, {found}")
    return _take_turns(measured, processes, rounds)


def _take_turns(
    measured: dict[str, dict[str, Any]], processes: dict[str, Process], rounds: int
) -> dict[str, dict[str, Any]]:
    """Fills in ``seconds``, a round at a time, and ``peak``; drops who fails."""
    for turn in range(rounds):
        for name in list(measured):
            time.sleep(_REST)
            try:
                seconds = processes[name].ask("run")["seconds"]
                measured[name]["peak"] = processes[name].ask("memory")["bytes"]
            except ContenderError as error:
                del measured[name]
                say(f"  {name} is left out: {error}.")
                continue
            measured[name]["seconds"].append(seconds)
            say(f"  round {turn + 1} of {rounds}, {name}: {seconds:.2f} s")
    return measured


def compared(
    workload: Workload, tokens: dict[str, list[list[int]] | None]
) -> dict[str, dict[str, Any]]:
    """Returns how many tokens each contender found, and in how many rows those of the first."""
    rows = {n: r and [generated(workload, row) for row in r] for n, r in tokens.items()}
    reference = next(iter(rows.values()), None)
    return {
        name: {
            "generated": found and sum(map(len, found)),
            "equal": _equal_rows(found, reference) if workload.is_exact else None,
        }
        for name, found in rows.items()
    }


def _equal_rows(
    rows: list[list[int]] | None, reference: list[list[int]] | None
) -> tuple[int, int] | None:
    if rows is None or reference is None:
        return None
    return sum(a == b for a, b in zip(rows, reference, strict=True)), len(rows)


def generated(workload: Workload, row: list[int]) -> list[int]:
    """Returns the tokens without what contenders differ in: prompt, end and padding.

    Forced tokens are the last ones of a row. Whisper's text lies below its special tokens.
    """
    if workload.tokens is not None:
        return row[-workload.tokens :]
    return [token for token in row if token < _WHISPER_END]
