"""The devices that a training is planned for, by name: ``v5e:4x4``, ``h100:8``, ``cpu:8``."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from speech_ed_flax.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Chip:
    """One generation of TPU.

    Attributes:
        memory: GiB that the compiler gives a program on one device.
        devices: that JAX shows for each chip.
        description: what else JAX must be told.
    """

    memory: float
    devices: int = 1
    description: dict[str, str] = field(default_factory=dict)


TPUS = {
    "v2": Chip(7.48, 2),
    "v3": Chip(15.48, 2),
    "v4": Chip(30.75, description={"chip_config_name": "megacore"}),
    "v5e": Chip(15.75),
    "v5p": Chip(95.74),
    "v6e": Chip(31.25),
    "tpu7x": Chip(94.75, 2),
}
"""By the names of topologies; the memory is what each compiler says when it is exceeded."""

GPUS = {"a100": 79.0, "h100": 79.0}
"""GiB of memory, by the names of the descriptions beside this file."""

_TPU_SETTINGS = {
    # A TPU's compiler asks nobody where it runs, writes no log, and may be loaded twice.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "XLA_FLAGS": "",
}


@dataclass(frozen=True)
class Topology:
    """Devices that are described and need not be there.

    Attributes:
        name: as the user wrote it.
        platform: "tpu", "cuda" or "cpu".
        count: how many devices there are.
        memory: bytes of each; None if they share the host's.
        description: for ``jax.experimental.topologies``.
        options: of the compiler.
        environment: of the process that compiles.
    """

    name: str
    platform: str
    count: int
    memory: int | None
    description: dict[str, Any]
    options: dict[str, Any]
    environment: dict[str, str]

    def devices(self) -> Sequence[Any]:
        """Returns the devices, as JAX describes them; in a process with ``environment`` only."""
        import jax
        from jax.experimental import topologies

        if self.platform == "cpu":
            return jax.devices("cpu")[: self.count]
        return topologies.get_topology_desc(platform=self.platform, **self.description).devices

    def check_compiler(self) -> None:
        """Raises ConfigError saying what to install if the compiler is not there."""
        plugin = {"tpu": "libtpu", "cuda": "jax_cuda13_plugin"}.get(self.platform)
        if plugin is not None and find_spec(plugin) is None:
            raise ConfigError(
                f"no compiler for {self.name} is here: pip install 'speech_ed_flax[aot]' brings it."
            )


def parse_topology(name: str) -> Topology:
    """Returns the topology of a name.

    Raises:
        ConfigError: naming what is known.
    """
    kind, _, sizes = name.partition(":")
    dimensions = tuple(int(size) for size in re.findall(r"[1-9]\d*", sizes))
    if sizes == "x".join(map(str, dimensions)):
        if kind in TPUS and len(dimensions) in (2, 3):
            return _tpu(name, TPUS[kind], dimensions)
        if kind in GPUS and len(dimensions) == 1:
            return _gpu(name, kind, dimensions[0])
        if kind == "cpu" and len(dimensions) == 1:
            return _cpu(name, dimensions[0])
    raise ConfigError(
        f"{name!r} is no topology: write v5e:4x4, v4:2x2x1, h100:8 or cpu:8; known are "
        f"{', '.join((*TPUS, *GPUS, 'cpu'))}."
    )


def _tpu(name: str, chip: Chip, dimensions: tuple[int, ...]) -> Topology:
    description: dict[str, Any] = {"topology_name": name, **chip.description}
    if 1 in dimensions[:2]:  # a host has 2 x 2 chips, if there are as many
        description["chips_per_host_bounds"] = (*(min(2, size) for size in dimensions[:2]), 1)
    return Topology(
        name,
        "tpu",
        prod(dimensions) * chip.devices,
        int(chip.memory * GIB),
        description,
        # Compiles a few times faster; what is computed and kept hardly differs.
        {"exec_time_optimization_effort": -1.0},
        _TPU_SETTINGS,
    )


def _gpu(name: str, kind: str, count: int) -> Topology:
    description = {
        "topology_name": "",
        "target_config": Path(__file__).with_name(f"{kind}.txtpb").read_text(),
        "topology": f"1x1x{count}",
    }
    # Triton finds no tiles for odd sizes, such as those of many vocabularies.
    options = {"xla_gpu_enable_triton_gemm": False}
    memory = int(GPUS[kind] * GIB)
    return Topology(name, "cuda", count, memory, description, options, {"XLA_FLAGS": ""})


def _cpu(name: str, count: int) -> Topology:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return Topology(name, "cpu", count, None, {}, {}, {"XLA_FLAGS": flags.strip()})
