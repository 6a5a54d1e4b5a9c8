"""What is compiled for: accelerators that need not be there, and the CPU in four parts."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

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
    topology: dict[str, str]
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


def _gpu(name: str) -> Target:
    description = Path(__file__).with_name(f"{name}.txtpb").read_text()
    return Target(
        platform="cuda",
        topology={
            "topology_name": "",
            "target_config": description,
            "topology": f"1x1x{DEVICES}",
        },
        # Triton finds no tiles for the odd sizes of tiny models.
        options={"xla_gpu_enable_triton_gemm": False},
        plugin="jax_cuda13_plugin",
    )


TARGETS = {
    "cpu": Target("cpu", {}, {}, None),
    "v5e": Target(
        "tpu", {"topology_name": "v5e:2x2"}, {"exec_time_optimization_effort": -1.0}, "libtpu"
    ),
    "a100": _gpu("a100"),
    "h100": _gpu("h100"),
}
