"""The arrays of a checkpoint on the disk: read onto devices, or into the host's memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.training.digests import check_digests
from speech_ed_flax.training.records import read_record
from speech_ed_flax.training.sealing import STATE


def check(checkpoint: Path) -> None:
    """Reads a whole checkpoint and compares it with its digests.

    Raises:
        CheckpointError: naming the first file that is damaged.
    """
    check_digests(checkpoint)
    read_record(checkpoint)


def nested(state: Any) -> dict[str, Any]:
    """Returns any pytree as nested dicts, so that its types need not be known to read it back."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return unflatten_dict({_names(path): leaf for path, leaf in leaves})


def _names(path: Any) -> tuple[str, ...]:
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def read_state(checkpoint: Path, abstract_state: Any) -> Any:
    """Returns the state in a checkpoint, placed as ``abstract_state`` says.

    Args:
        checkpoint: folder of a checkpoint that was checked.
        abstract_state: pytree of arrays or ``ShapeDtypeStruct`` with shardings; a leaf without one
            is placed on the first device.

    Raises:
        CheckpointError: naming the leaves that differ from it in path, shape or dtype.
    """
    path, first = checkpoint / STATE, jax.sharding.SingleDeviceSharding(jax.devices()[0])

    def placed(leaf: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(leaf, "sharding", None) or first
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    wanted = nested(jax.tree.map(placed, abstract_state))
    _refuse_misfits(path, _stored_shapes(path), wanted)
    arguments = ocp.args.StandardRestore(wanted)
    found = flatten_dict(
        ocp.StandardCheckpointHandler().restore(epath.Path(path.absolute()), args=arguments)
    )
    return jax.tree_util.tree_map_with_path(lambda names, _: found[_names(names)], abstract_state)


def read_arrays(checkpoint: Path, *parts: str) -> dict[str, np.ndarray]:
    """Returns arrays of a state by path, in the host's memory; random keys are integers.

    Args:
        checkpoint: folder of a checkpoint that was checked.
        parts: of the state, such as "params"; all if omitted.
    """
    path = checkpoint / STATE
    shapes = _stored_shapes(path)
    wanted = {name: shapes[name] for name in shapes if name in parts or not parts}
    if not wanted:
        return {}
    host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    arguments = ocp.args.PyTreeRestore(wanted, restore_args=host, partial_restore=True)
    found: Any = ocp.PyTreeCheckpointHandler().restore(epath.Path(path.absolute()), args=arguments)
    flat: dict[str, Any] = flatten_dict(found, sep="/")
    return flat


def _stored_shapes(path: Path) -> dict[str, Any]:
    """Returns shape and dtype of every stored array, as nested dicts."""
    metadata: Any = ocp.StandardCheckpointHandler().metadata(epath.Path(path.absolute()))
    return metadata.tree


def _refuse_misfits(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    found, meant = _kinds(stored), _kinds(wanted)
    lines = [
        f"{name} is {found.get(name, 'missing')} there and {meant.get(name, 'unknown')} here"
        for name in sorted(found.keys() | meant.keys())
        if found.get(name) != meant.get(name)
    ]
    if lines:
        more = f", and {len(lines) - 3} more" if len(lines) > 3 else ""
        raise CheckpointError(
            f"{path}: it is the state of another model or optimizer: {', '.join(lines[:3])}{more} "
            "(train with the settings it began with, or into another folder)."
        )


def _kinds(tree: Mapping[str, Any]) -> dict[str, str]:
    return {name: _kind(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}


def _kind(leaf: Any) -> str:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
