"""Where parameters lie on a mesh: one table over their paths."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.mesh import DATA, FSDP, TENSOR, AnyMesh
from speech_ed_flax.paths import FEATURE_ENCODER, first_match, map_paths
from speech_ed_flax.types import Params

Splits = Mapping[str, tuple[int, ...]]
"""By axis of the mesh, the dimensions that it may split, the best one first."""

WHOLE: Splits = {}

PLACES: tuple[tuple[str, Splits], ...] = (
    # Heads and the inner width of a layer are split over ``tensor``: one exchange behind "out"
    # and "down" joins what the devices computed.
    (r"\b(query|key|value|up)/weight$", {TENSOR: (0,), FSDP: (1, 0)}),
    (r"\b(query|key|value|up)/bias$", {TENSOR: (0,)}),
    (r"\b(out|down)/weight$", {TENSOR: (1,), FSDP: (0, 1)}),
    (r"\b(tokens/embedding|(head|ctc)/weight)$", {TENSOR: (0,), FSDP: (0, 1)}),
    (r"[/_]weight$", {FSDP: (0, 1)}),
    (r"\b(pronunciations|shapes|predictions|distances)/embedding$", {FSDP: (1, 0)}),
    (r"\bpositions/(embedding|sinusoids)$", {FSDP: (1, 0)}),
    # Small: a device that had a part of it would compute a few channels at a time.
    (FEATURE_ENCODER, WHOLE),
    # Groups are cut out of the outputs, so these stay whole.
    (r"positions/(kernel|direction|magnitude)$", {FSDP: (0, 1)}),
    (r"/kernel$", {FSDP: (2, 1)}),
)
"""Weights are ``[outputs, inputs]``, embeddings ``[vocab, width]``, kernels ``[size, inputs,
outputs]``. What is not named is small: biases, norms, magnitudes, token types, tables of heads."""

ROWS = PartitionSpec((DATA, FSDP))
"""A batch is split over the devices of both axes."""


def place_of(
    mesh: AnyMesh, path: str, shape: tuple[int, ...], axes: Sequence[str] = (TENSOR, FSDP)
) -> NamedSharding:
    """Returns where the parameter of a path lies.

    Args:
        mesh: of devices.
        path: of the parameter.
        shape: of it; an axis that divides none of its dimensions splits none.
        axes: that may split it.
    """
    names: list[tuple[str, ...]] = [()] * len(shape)
    left = list(shape)
    for axis, dimensions in first_match(path, PLACES, WHOLE).items():
        size = mesh.shape[axis]
        chosen = next((d for d in dimensions if d < len(left) and left[d] % size == 0), None)
        if axis in axes and chosen is not None and size > 1:
            names[chosen] += (axis,)
            left[chosen] //= size
    return NamedSharding(mesh, PartitionSpec(*(axes or None for axes in names)))


def param_sharding(mesh: AnyMesh, params: Params) -> dict[str, Any]:
    """Returns the tree of where parameters lie, given them or their shapes."""
    return map_paths(lambda path, leaf: place_of(mesh, path, leaf.shape), dict(params))


def gather_params(mesh: Mesh, params: Params) -> dict[str, Any]:
    """Returns parameters of which no device lacks a part but for what ``tensor`` splits.

    That is how to generate: what is split over ``fsdp`` would be gathered for every token.
    """
    return jax.device_put(dict(params), gathered_sharding(mesh, params))


def gathered_sharding(mesh: AnyMesh, params: Params) -> dict[str, Any]:
    """Returns the tree of where ``gather_params`` puts parameters, given them or their shapes."""
    return map_paths(lambda path, leaf: place_of(mesh, path, leaf.shape, (TENSOR,)), dict(params))
