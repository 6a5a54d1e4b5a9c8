"""How fast is generation here, and in every peer? One interleaved run, the same weights and tokens.

    python benchmarks/inference.py --preset targets --rounds 5 --json targets.json \
        --python flax457=FLAX/bin/python --python faster_whisper=WHISPER/bin/python \
        --whisper openai/whisper-tiny.en --speech clips.tsv
    python benchmarks/inference.py --cold-start --whisper ... --speech ... --json cold_start.json
    python benchmarks/inference.py --table targets.json cold_start.json

Each contender is a warm process with its own Python environment, made with one command
(``pip install -r benchmarks/requirements/NAME.txt``); one whose interpreter is not given is left
out. They take turns (A, B, C, A, B, C, ...), so that a slow moment of the machine slows all alike.
Before any time is taken, tokens are compared. ``--table`` makes Markdown of what was measured.
PyTorch without bfloat16 instructions is 20 times slower in bfloat16 than in float32: there,
``--contenders '^(?!PyTorch (bf16|autocast))'`` saves hours.
"""

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from contenders.cold_start import cold_starts
from contenders.crew import Crew, say
from contenders.machine import machine
from contenders.rounds import limits, measure
from contenders.table import render
from contenders.workloads import COLD_START, PRESETS, Workload

_HERE = Path(__file__).resolve().parent
_BUSY = 0.5
"""Load of the machine above which times are not to be trusted."""


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
    parser.add_argument("--preset", choices=PRESETS, default="targets")
    parser.add_argument("--cold-start", action="store_true", help="measure that, and no preset")
    parser.add_argument("--only", type=re.compile, default="", help="pattern of workloads")
    parser.add_argument("--contenders", type=re.compile, default="", help="pattern of contenders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", type=_assignment, action="append", default=[])
    parser.add_argument("--whisper", help="folder or Hub name of whisper-tiny.en")
    parser.add_argument("--speech", type=Path, help="folder of recordings, or a TSV with path")
    parser.add_argument("--json", type=Path, default=Path("inference.json"))
    folder = Path(tempfile.gettempdir()) / "speech_ed_flax_inference"
    parser.add_argument("--scratch", type=Path, default=folder, help="kept from run to run")
    return parser.parse_args()


def _assignment(text: str) -> tuple[str, str]:
    """Reads ``NAME=PATH``."""
    name, equals, path = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write it as flax457=/path/to/python")
    return name, path


def _chosen(options: argparse.Namespace) -> list[Workload]:
    """Returns the workloads to measure; Whisper's only if there are a model and speech."""
    workloads = [COLD_START] if options.cold_start else list(PRESETS[options.preset]())
    chosen = [workload for workload in workloads if options.only.search(workload.name)]
    if options.whisper and options.speech:
        return chosen
    say("Whisper is left out: --whisper and --speech are not both given.")
    return [workload for workload in chosen if workload.model != "whisper"]


def _measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields the document that ``--json`` names, again after every workload."""
    here = machine()
    if here["load"] > _BUSY:
        say(f"The machine is busy (load {here['load']}): peers whose threads spin will seem slow.")
    options.scratch.mkdir(parents=True, exist_ok=True)
    workloads = _chosen(options)
    materials = _materials(options, workloads)
    pythons = {"ours": sys.executable, "limits": sys.executable, "pytorch": sys.executable}
    crew = Crew(pythons | dict(options.python), options.scratch, options.contenders)
    document = {"machine": here, "rounds": options.rounds, "versions": crew.versions}
    if options.cold_start:
        for workload in workloads:
            material = materials[workload.name]
            starts = cold_starts(crew, material, options.rounds, options.scratch)
            yield document | {"cold_start": starts}
        return
    document |= {"limits": limits(crew, options.rounds), "workloads": []}
    document["step_parameters"] = materials["step_parameters"]
    for measured in measure(crew, workloads, materials, options.rounds):
        document["workloads"].append(measured)
        yield document


def _materials(options: argparse.Namespace, workloads: list[Workload]) -> dict[str, Any]:
    """Makes checkpoints and inputs, in a process of its own: JAX must not stay in this one."""
    say(f"materials in {options.scratch}")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(
            _make, options.scratch, workloads, options.whisper, options.speech
        ).result()


def _make(*arguments: Any) -> dict[str, Any]:
    # transformers must not take benchmarks/kernels.py for the package of that name.
    sys.path[:] = [path for path in sys.path if Path(path).resolve() != _HERE]
    from contenders.materials import make

    return make(*arguments)


if __name__ == "__main__":
    main()
