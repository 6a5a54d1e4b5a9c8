"""The command ``plan``: what a training would take, on devices that need not be there."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from speech_ed_flax.commands.outcome import Outcome

if TYPE_CHECKING:
    from speech_ed_flax.training.planning.report import Costs, Finding, Report


def plan(
    *changes: Annotated[str, Parameter(allow_leading_hyphen=True)],
    config: Annotated[Path, Parameter(alias="-c")],
    topology: Annotated[str, Parameter(alias="-t")],
    longest_only: bool = False,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Say what a training would take of devices that need not be there.

    Compiles the step of the training for every shape of its batches, and the generation of its
    evaluations for the longest, and prints what each needs: memory, work and what the
    devices exchange. Needs the compilers of pip install 'speech_ed_flax[aot]'.
    Ends with 3 if some batches do not fit into the memory, with 4 if none does.

    Args:
        changes: Settings of the configuration, by their dotted names.
        config: YAML file of a training.
        topology: Devices, as in v5e:4x4, v4:2x2x1, h100:8 or cpu:8.
        longest_only: Compile the step for the longest batches only.
        as_json: Print one JSON object.
    """
    os.environ["JAX_PLATFORMS"] = "cpu"  # the devices that are there may be at work
    from dataclasses import asdict

    from speech_ed_flax.settings import read_settings
    from speech_ed_flax.training.config import TrainConfig

    report, padding, rate = _describe(
        read_settings(TrainConfig, config, changes), topology, longest_only
    )
    if as_json:
        print(json.dumps(asdict(report) | {"padding": padding}, indent=2))
    else:
        print("\n".join(_lines(report, padding, rate)))
    refused = [finding.refusal is not None for finding in report.findings]
    if all(refused):
        return Outcome.ALL_FAILED
    return Outcome.SOME_FAILED if any(refused) else Outcome.DONE


def _describe(config: Any, topology: str, longest_only: bool) -> tuple["Report", float, int]:
    """Returns the report, the share of padding, and the samples of a second."""
    from jax.sharding import AbstractMesh

    from speech_ed_flax.conversion.config import merge_generation
    from speech_ed_flax.mesh import axis_sizes
    from speech_ed_flax.training.materials import gather
    from speech_ed_flax.training.planning.describe import describe
    from speech_ed_flax.training.planning.topology import parse_topology

    devices = parse_topology(topology)
    devices.check_compiler()
    sizes = axis_sizes(config.layout, devices.count)
    mesh: Any = AbstractMesh(tuple(sizes.values()), tuple(sizes))
    materials = gather(config, mesh, None)
    model, shapes = materials.model, materials.plan.shapes
    report = describe(
        materials.module,
        materials.settings,
        config.layout,
        shapes[-1:] if longest_only else shapes,
        topology,
        merge_generation(None, model.generation_config, dict(config.evaluation.generation)),
        shapes[-1:] if config.evaluate else (),
        announce=lambda line: print(line, file=sys.stderr, flush=True),
    )
    features: Any = model.processor.features
    return report, materials.plan.padding(), features.sampling_rate


def _lines(report: "Report", padding: float, rate: int) -> list[str]:
    sizes = ", ".join(f"{axis}={size}" for axis, size in report.mesh.items())
    memory = "" if report.memory is None else f" of {_size(report.memory)}"
    return [
        f"{report.topology}: {report.devices} devices{memory}, {sizes}",
        f"{padding:.1%} of the planned batches is padding",
        *(line for finding in report.findings for line in _finding(finding, report.memory, rate)),
    ]


def _finding(finding: "Finding", memory: int | None, rate: int) -> list[str]:
    shape = finding.shape
    title = f"{finding.program} {shape.rows} x {shape.samples / rate:.2f} s, {shape.labels} labels:"
    verdict = "fits" if finding.refusal is None else f"does not fit: {finding.refusal}"
    details = [] if finding.costs is None else _costs(finding.costs, memory)
    return ["", f"{title} {verdict}", *(f"  {name:20}{value}" for name, value in details)]


def _costs(costs: "Costs", memory: int | None) -> list[tuple[str, str]]:
    share = "" if memory is None else f" ({costs.peak / memory:.0%})"
    lines = [
        ("memory", f"{_size(costs.peak)}{share} of a device at most"),
        ("  arguments", _size(costs.arguments)),
        ("  temporaries", _size(costs.temporaries)),
    ]
    if costs.flops is not None:
        lines.append(("work", f"{costs.flops / 1e9:,.1f} GFLOP of a device"))
    for exchange in costs.exchanges:
        each = " for each token" if exchange.endless else ""
        lines.append((exchange.kind, f"{exchange.count} of {_size(exchange.bytes)} in all{each}"))
    return [*lines, ("compiled in", f"{costs.seconds:.1f} s")]


def _size(count: int) -> str:
    """Returns a number of bytes as a person reads it."""
    size, units = float(count), ["B", "KiB", "MiB"]
    while size >= 1024 and units:
        size, _ = size / 1024, units.pop(0)
    return f"{size:.2f} {units[0] if units else 'GiB'}"
