"""Where activations lie when a batch is split over the devices of a mesh."""

from math import prod

import jax
from jax.sharding import AxisType, PartitionSpec

from speech_ed_flax.types import Array, Float

ROW_AXES = ("data", "fsdp")
"""Axes of a mesh over which the rows of a batch are split."""


def split_rows(x: Float[Array, "rows ..."]) -> Float[Array, "rows ..."]:
    """Returns ``x``, each device having some rows, and all of those; without a mesh, just ``x``.

    Left to itself, XLA moves activations where weights are split and batches are small: it computes
    a part of every row on each device, and adds the parts up behind each product.
    """
    mesh = jax.sharding.get_abstract_mesh()
    automatic = {
        axis
        for axis, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }
    axes = tuple(axis for axis in ROW_AXES if axis in automatic)
    if not axes or x.shape[0] % prod(mesh.shape[axis] for axis in axes):
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes))
