"""The mesh: how the devices of a training are laid out along its three axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh

from speech_ed_flax.errors import ConfigError

DATA, FSDP, TENSOR = AXES = ("data", "fsdp", "tensor")

AnyMesh = Mesh | AbstractMesh
"""A mesh of devices, or only the sizes of its axes."""

HOST = 4
"""Chips of one host of a TPU pod."""


@dataclass(frozen=True)
class MeshSettings:
    """How many devices lie along each axis; -1 for all that the others leave.

    Attributes:
        data: groups of devices that hold all parameters between them, and each read a part of the
            batch.
        fsdp: devices of a group that each hold a part of every parameter and of its moments, and
            read a part of the group's batch (ZeRO; Rajbhandari et al., 2020).
        tensor: devices that each compute a part of every layer (Megatron-LM; Shoeybi et al., 2019),
            for the same utterances.

    Raises:
        ConfigError: naming the axis that has no such size.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self):
        sizes = dict(zip(AXES, self.sizes, strict=True))
        for axis, size in sizes.items():
            if size < 1 and size != -1:
                raise ConfigError(f"mesh {axis}={size} counts no devices: use 1 or more, or -1.")
        if self.sizes.count(-1) > 1:
            raise ConfigError(f"mesh {sizes}: only one axis can be -1, which is all that is left.")

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes of the axes, in the order of ``AXES``."""
        return self.data, self.fsdp, self.tensor


PRESETS = {
    "single": MeshSettings(data=1),
    "data": MeshSettings(data=-1),
    "host": MeshSettings(data=1, fsdp=-1),
    "pod": MeshSettings(data=-1, fsdp=HOST),
}
"""Meshes by name. ``single``: one device. ``data``: all parameters on every device. ``host``: every
parameter split over all devices, which should be of one host. ``pod``: split over the chips of a
host, and the hosts share nothing but gradients."""


def make_mesh(settings: MeshSettings, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh that always has the three axes, neighbours along ``tensor`` closest.

    Args:
        settings: sizes of the axes.
        devices: to lay out; all that there are if None. Where one process has all of them it may
            use the first few; several processes must use all.

    Raises:
        ConfigError: naming the numbers that do not fit.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = tuple(axis_sizes(settings, len(devices)).values())
    count = prod(sizes)
    processes = len({device.process_index for device in devices})
    if count > len(devices) or (count < len(devices) and processes > 1):
        raise ConfigError(
            f"{_text(sizes)} is a mesh of {count} devices and {processes} processes have "
            f"{len(devices)}: change an axis, or make it -1."
        )
    chosen = np.array(devices[:count]).reshape(sizes)
    if devices[0].platform == "tpu" and count == len(devices):
        chosen = _neighbours(sizes, devices)
    return Mesh(chosen, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def axis_sizes(settings: MeshSettings, count: int) -> dict[str, int]:
    """Returns the sizes by axis, with the devices of ``count`` that are left in the place of -1.

    Raises:
        ConfigError: naming the numbers that do not divide.
    """
    known = prod(size for size in settings.sizes if size != -1)
    if -1 in settings.sizes and count % known:
        raise ConfigError(
            f"{_text(settings.sizes)}: {count} devices do not divide into groups of {known}: "
            "change an axis."
        )
    sizes = (count // known if size == -1 else size for size in settings.sizes)
    return dict(zip(AXES, sizes, strict=True))


def _neighbours(sizes: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Returns TPUs in the shape of the mesh; what exchanges most has the shortest way."""
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    if sizes[0] % slices:
        raise ConfigError(
            f"{_text(sizes)} is a mesh over {slices} slices of TPUs: data must be a multiple of "
            f"{slices}, as only gradients should pass between slices."
        )
    within = (sizes[0] // slices, *sizes[1:])
    return mesh_utils.create_hybrid_device_mesh(
        within, (slices, 1, 1), devices, allow_split_physical_axes=True
    )


def _text(sizes: Sequence[int]) -> str:
    return ", ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes, strict=True))
