"""How fast is a step of training here, and in every peer? The same weights, batch and optimizer.

    python benchmarks/training.py --rounds 5 --json training.json --python flax457=FLAX/bin/python
    python benchmarks/training.py --table training.json

Each contender is a warm process with its own Python environment, as in ``inference.py``. First
they take three steps without dropout, whose losses must be equal. Then, in new processes, they take
turns (A, B, C, A, B, C, ...) at steps with dropout; layer drop and SpecAugment are off, for they
leave the amount of work to chance. ``--table`` makes Markdown of what was measured.
"""

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from contenders.crew import Crew, say
from contenders.machine import machine
from contenders.process import ContenderError, Process
from contenders.training_table import render
from contenders.trainings import (
    CHECKED,
    ENTRIES,
    TOLERANCES,
    Training,
    draw_labels,
    request_for,
    trainings,
)

_HERE = Path(__file__).resolve().parent
_REST = 0.3
"""Seconds between contenders: OpenMP's threads spin for up to 0.2 s after their work."""


def main() -> None:
    """Measures, or prints the tables of earlier measurements."""
    options = _options()
    if options.table:
        print(render([json.loads(path.read_text()) for path in options.table]), end="")
        return
    document = {}
    for document in _measured(options):  # as it grows: a run that is cut off leaves what it has
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    if document:
        print(render([document]), end="")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, nargs="+", help="print the tables of these files")
    parser.add_argument("--only", type=re.compile, default="", help="pattern of trainings")
    parser.add_argument("--contenders", type=re.compile, default="", help="pattern of contenders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=PATH")
    parser.add_argument("--json", type=Path, default=Path("training.json"))
    folder = Path(tempfile.gettempdir()) / "speech_ed_flax_training"
    parser.add_argument("--scratch", type=Path, default=folder, help="kept from run to run")
    return parser.parse_args()


def _measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the document that ``--json`` names, again after every training."""
    here = machine()
    options.scratch.mkdir(parents=True, exist_ok=True)
    narrow = bool({"avx512_bf16", "amx_bf16"} & set(here["flags"]))
    chosen = [one for one in trainings(narrow) if options.only.search(one.name)]
    materials = _materials(options.scratch, chosen)
    pythons = {f"{name}_training": sys.executable for name in ("ours", "pytorch")}
    given = (assignment.partition("=") for assignment in options.python)
    pythons |= {f"{name}_training": path for name, _, path in given}
    crew = Crew(pythons, options.scratch, re.compile(""))
    document = {"machine": here, "rounds": options.rounds, "versions": crew.versions}
    document["trainings"] = []
    for training in chosen:
        say(training.name)
        labels = draw_labels(options.scratch, training)
        material = materials[training.workload.name]
        names = [name for name in training.contenders if options.contenders.search(name)]
        losses = _losses(crew, names, request_for(material, labels, dropout=False))
        request = request_for(material, labels, dropout=True)
        found = _take_turns(crew, list(losses), request, options.rounds)
        contenders = {name: {"losses": losses[name]} | one for name, one in found.items()}
        size = {"name": training.name, "seconds": training.batch * training.seconds}
        document["trainings"].append(size | {"contenders": contenders})
        yield document


def _materials(scratch: Path, chosen: list[Training]) -> dict[str, Any]:
    """Makes checkpoints and sounds, in a process of its own: JAX must not stay in this one."""
    say(f"materials in {scratch}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_make, scratch, [one.workload for one in chosen]).result()


def _make(scratch: Path, workloads: list[Any]) -> dict[str, Any]:
    # transformers must not take benchmarks/kernels.py for the package of that name.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != _HERE]
    from contenders.materials import make

    return make(scratch, workloads, None, None)


def _losses(crew: Crew, names: list[str], request: dict[str, Any]) -> dict[str, list[float]]:
    """Returns the losses of the first steps of every contender that is to be had.

    Raises:
        AssertionError: if a contender does not train as the first one does.
    """
    losses: dict[str, list[float]] = {}
    for name in names:
        process = crew.start(name, ENTRIES[name])
        if process is None:
            continue
        losses[name] = list(_steps(process, request))
        process.close()
        say(f"  {name}: losses {losses[name]}")
        expected, tolerance = next(iter(losses.values())), TOLERANCES[ENTRIES[name].precision]
        for loss, wanted in zip(losses[name], expected, strict=True):
            assert abs(loss - wanted) <= tolerance * wanted, f"{name} trains differently"
    return losses


def _steps(process: Process, request: dict[str, Any]) -> Iterator[float]:
    process.ask("load", **request)
    for _ in range(CHECKED):
        process.ask("run")
        yield process.ask("loss")["loss"]


def _take_turns(
    crew: Crew, names: list[str], request: dict[str, Any], rounds: int
) -> dict[str, dict[str, Any]]:
    """Returns ``first`` (seconds of the step that compiles), ``seconds`` and ``peak`` of each."""
    processes: dict[str, Process] = {}
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        process = crew.start(name, ENTRIES[name])
        assert process is not None, f"{name} does not start again"
        process.ask("load", **request)
        first = process.ask("run")["seconds"]
        processes[name], found[name] = process, {"first": first, "seconds": []}
        say(f"  {name}: first {first:.2f} s")
    for turn in range(rounds):
        for name, process in processes.items():
            time.sleep(_REST)
            seconds = process.ask("run")["seconds"]
            found[name]["seconds"].append(seconds)
            found[name]["peak"] = process.ask("memory")["bytes"]
            say(f"  round {turn + 1} of {rounds}, {name}: {seconds:.2f} s")
    for process in processes.values():
        process.close()
    return found


if __name__ == "__main__":
    try:
        main()
    except ContenderError as error:
        sys.exit(f"error: {error}")
