"""What a training would cost on devices that need not be there."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.mesh import MeshSettings, axis_sizes
from speech_ed_flax.model import SpeechEncoderDecoder
from speech_ed_flax.training.planning.collectives import Exchange
from speech_ed_flax.training.planning.job import Job, batch_like
from speech_ed_flax.training.planning.report import Costs, Finding, Program, Report
from speech_ed_flax.training.planning.topology import GIB, Topology, parse_topology
from speech_ed_flax.training.settings import StepSettings

COMPILER = "speech_ed_flax.training.planning.compilation"


def describe(
    module: SpeechEncoderDecoder,
    step: StepSettings,
    mesh: MeshSettings,
    shapes: Iterable[Shape],
    topology: str,
    generation: Any = None,
    generated: Iterable[Shape] = (),
    announce: Callable[[str], None] = lambda line: None,
) -> Report:
    """Compiles every program of a training for a topology, and returns what they cost.

    Args:
        module: the model.
        step: settings of the training step.
        mesh: how the devices are laid out.
        shapes: of the batches that are trained on.
        topology: such as ``v5e:4x4``; see ``parse_topology``.
        generation: transformers' generation config, complete, if anything is generated.
        generated: shapes of the batches that are generated for.
        announce: is told what is compiled next.

    Raises:
        ConfigError: if the topology, or the compiler for it, is not there, or does not fit the
            mesh; naming what is wrong.
    """
    devices = parse_topology(topology)
    devices.check_compiler()
    sizes = axis_sizes(mesh, devices.count)
    wanted: list[tuple[Program, Shape]] = [("train", shape) for shape in shapes]
    wanted.extend(("generate", shape) for shape in generated)
    findings = []
    for number, (program, shape) in enumerate(wanted, 1):
        size = f"{shape.rows} rows of {shape.samples} samples"
        announce(f"compiling {number} of {len(wanted)}: {program}, {size}")
        job = Job(program, module, step, mesh, devices, batch_like(module, shape), generation)
        costs, refusal = compile_apart(job)
        findings.append(Finding(program, shape, costs, refusal))
    return Report(topology, devices.count, devices.memory, sizes, findings)


def compile_apart(job: Job) -> tuple[Costs | None, str | None]:
    """Compiles a job in a process of its own; returns its costs, or why it cannot run, or both."""
    settings = {"JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-P", "-m", COMPILER],
        input=pickle.dumps(job),
        env=os.environ | settings | job.topology.environment,
        capture_output=True,
        check=False,
    )
    if result.returncode:
        raise ConfigError(_failure(job.topology, result))
    found = json.loads(result.stdout.splitlines()[-1])
    if "error" in found:
        raise ConfigError(found["error"])
    if "refusal" in found:
        return None, found["refusal"]
    exchanges = tuple(Exchange(**exchange) for exchange in found["costs"].pop("exchanges"))
    costs = Costs(**found["costs"], exchanges=exchanges)
    memory = job.topology.memory
    if memory is not None and costs.peak > memory:
        needed = f"needs {costs.peak / GIB:.2f} GiB of the {memory / GIB:.2f} GiB of a device"
        return costs, needed
    return costs, None


def _failure(topology: Topology, result: subprocess.CompletedProcess[bytes]) -> str:
    """Returns a sentence of what a compiler's process said last."""
    lines = [line.strip() for line in result.stderr.decode(errors="replace").splitlines()]
    errors = [line for line in lines if "Error" in line or line.startswith("F")]
    reason = (errors or lines or ["it said nothing"])[-1]
    ended = "aborted" if result.returncode < 0 else "failed"
    return f"the compiler for {topology.name} {ended}: {reason[:500]}"
