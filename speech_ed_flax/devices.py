"""A batch of speech shared by the devices of one process."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from math import prod
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.memory import device_memory
from speech_ed_flax.mesh import AXES, DATA, AnyMesh, MeshSettings, make_mesh
from speech_ed_flax.partition import ROWS, gather_params, gathered_sharding
from speech_ed_flax.types import Params

WEIGHTS_SHARE = 0.6
"""Of the memory of a device, that weights may take: what they compute needs the rest."""


def on_host() -> AbstractContextManager[Any]:
    """Makes new arrays in the memory of the host, from where they are dealt out to devices."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS leaves the host out
        return nullcontext()


def share_devices(
    params: Params, tensor: int | None = None, devices: Sequence[Any] | None = None
) -> Mesh:
    """Returns devices as a mesh: ``tensor`` of them hold the weights together.

    Args:
        params: the weights.
        tensor: a number that divides that of the devices; as few as can hold the weights if None.
        devices: those of this process if None.

    Raises:
        ConfigError: if the devices do not divide, or cannot hold the weights even together.
    """
    devices = jax.local_devices() if devices is None else list(devices)
    if tensor is None:
        room = min(device_memory(device) or np.inf for device in devices)
        tensor = fewest_holders(params, len(devices), room)
    return make_mesh(MeshSettings(tensor=tensor), devices)


def fewest_holders(params: Params, devices: int, room: float | int) -> int:
    """Returns how many of so many devices, of so many bytes each, must hold the weights together.

    Raises:
        ConfigError: if all of them cannot.
    """
    for count in (count for count in range(1, devices + 1) if devices % count == 0):
        held = held_bytes(AbstractMesh((devices // count, 1, count), AXES), params)
        if held <= WEIGHTS_SHARE * room:
            return count
    raise ConfigError(
        f"the weights take {held / 1e9:.1f} GB on each of {devices} devices, which have "
        f"{room / 1e9:.1f}: use dtype bfloat16, weights int8, or more devices."
    )


def default_batch(mesh: Mesh) -> int:
    """Returns how many clips the devices of a mesh recognise at once with ease."""
    return 8 if mesh.devices.flat[0].platform == "cpu" else 32 * mesh.shape[DATA]


def held_bytes(mesh: AnyMesh, params: Params) -> int:
    """Returns the bytes of weights that each device of a mesh holds."""
    places = jax.tree.leaves(gathered_sharding(mesh, params))
    leaves = jax.tree.leaves(params)
    return sum(
        prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for place, leaf in zip(places, leaves, strict=True)
    )


def over_devices(params: Params, mesh: Mesh) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Puts weights on devices; returns what makes calls of them that share every batch.

    Each device, or group of ``tensor`` devices, reads some rows of a batch: their number is to be a
    multiple of the mesh's ``data``.

    Args:
        params: of the model.
        mesh: of devices; see ``share_devices``.
    """
    if mesh.size == 1:  # no mesh: the programs are those of any other call
        weights: Params = jax.device_put(params, mesh.devices.item())
        rows: Any = mesh.devices.item()
    else:
        weights, rows = gather_params(mesh, params), NamedSharding(mesh, ROWS)

    def bind(call: Callable[..., Any]) -> Callable[..., Any]:
        def shared(values: np.ndarray, mask: np.ndarray, **asked: Any) -> Any:
            return call(*jax.device_put((values, mask), rows), params=weights, **asked)

        return shared

    return bind
