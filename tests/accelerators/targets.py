"""What is compiled for: accelerators that need not be there, and the CPU in four parts."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from speech_ed_flax.training.planning.topology import parse_topology

DEVICES = 4

HAS_CUDNN = find_spec("nvidia") is not None and find_spec("nvidia.cudnn") is not None


@dataclass(frozen=True)
class Target:
    """One kind of device.

    Attributes:
        platform: that JAX calls it by.
        topology: how JAX describes ``DEVICES`` of them.
        options: of the compiler.
        plugin: the module that brings its compiler; None if jaxlib does.
    """

    platform: str
    topology: dict[str, Any]
    options: dict[str, Any]
    plugin: str | None

    def mesh(self) -> Mesh:
        """Returns ``DEVICES`` devices in a row, along which the batch is sharded."""
        if self.platform == "cpu":
            return Mesh(np.array(jax.devices()), ("data",))
        described = topologies.get_topology_desc(platform=self.platform, **self.topology)
        return Mesh(np.array(described.devices).reshape(-1), ("data",))

    def missing(self, attention: str) -> str | None:
        """Says what must be installed, if anything."""
        if self.plugin is not None and find_spec(self.plugin) is None:
            return f"no compiler for {self.platform}: pip install 'speech_ed_flax[aot]' brings it"
        if attention == "cudnn" and not HAS_CUDNN:
            return "no cuDNN: pip install nvidia-cudnn-cu13 brings it"
        return None


def _planned(name: str, plugin: str) -> Target:
    """Returns what ``speech-ed-flax plan`` compiles for by this name."""
    topology = parse_topology(name)
    return Target(topology.platform, topology.description, topology.options, plugin)


TARGETS = {
    "cpu": Target("cpu", {}, {}, None),
    "v5e": _planned("v5e:2x2", "libtpu"),
    "a100": _planned(f"a100:{DEVICES}", "jax_cuda13_plugin"),
    "h100": _planned(f"h100:{DEVICES}", "jax_cuda13_plugin"),
}
