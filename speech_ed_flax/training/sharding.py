"""Where the state and the batches of a training lie on the mesh: one table over parameter paths."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import SpeechEncoderDecoder, abstract_params
from speech_ed_flax.paths import FEATURE_ENCODER, first_match, map_paths
from speech_ed_flax.training.mesh import DATA, FSDP, TENSOR, AnyMesh
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.state import TrainState, create
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
        mesh: of the training.
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


def state_sharding(mesh: AnyMesh, state: TrainState) -> TrainState:
    """Returns the tree of where a training's state lies.

    What has the shape of a parameter and a path that ends like its own lies where it does: moments
    and averages. Everything else, such as the factored moments of Adafactor, is small and whole.

    Args:
        mesh: of the training.
        state: or its shapes; see ``abstract_state``.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    map_paths(lambda path, leaf: shapes.setdefault(path, leaf.shape), state.params)

    def place(path: str, leaf: Any) -> NamedSharding:
        of = next((end for end in _endings(path) if end in shapes), None)
        if of is None or shapes[of] != leaf.shape:
            return NamedSharding(mesh, PartitionSpec())
        return place_of(mesh, of, leaf.shape)

    return map_paths(place, state)


def _endings(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def abstract_state(module: SpeechEncoderDecoder, settings: StepSettings) -> TrainState:
    """Returns the shapes of a training's state, allocating nothing."""
    params = unflatten_dict(abstract_params(module), sep="/")
    return jax.eval_shape(lambda params: create(module, params, settings), params)


def create_on(
    mesh: Mesh, module: SpeechEncoderDecoder, params: Params, settings: StepSettings, seed: int = 0
) -> TrainState:
    """Returns the state before the first step as ``create`` does, each device holding its part.

    Args:
        mesh: of the training.
        module: the model.
        params: its parameters, the same ones in every process.
        settings: of the step.
        seed: of every random number drawn while training.
    """
    placed = _place(dict(params), param_sharding(mesh, params))
    start = partial(create, module, settings=settings, seed=seed)
    shardings = state_sharding(mesh, jax.eval_shape(start, placed))
    return jax.jit(start, out_shardings=shardings)(placed)


def place_state(mesh: Mesh, state: TrainState) -> TrainState:
    """Returns a state that every process has whole, each device holding its part of it."""
    return _place(state, state_sharding(mesh, state))


def _place(tree: Any, shardings: Any) -> Any:
    return jax.tree.map(_place_leaf, tree, shardings)


def _place_leaf(leaf: Any, sharding: NamedSharding) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = _place_leaf(jax.random.key_data(leaf), sharding)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """Returns where the rows of a batch lie."""
    return NamedSharding(mesh, ROWS)


def local_rows(mesh: Mesh, rows: int) -> slice:
    """Returns which rows of a batch of ``rows`` this process must load.

    Processes that only compute other parts of the same layers load the same ones.

    Raises:
        ConfigError: if the rows do not divide over the devices, or are not one stretch.
    """
    check_rows(mesh, rows)
    places = batch_sharding(mesh).addressable_devices_indices_map((rows,))
    needed = sorted({index[0].indices(rows)[:2] for index in places.values() if index})
    for (_, end), (start, _) in pairwise(needed):
        if end != start:
            raise ConfigError(
                f"a mesh of {dict(mesh.shape)} gives one process rows {needed} of {rows}, which "
                "is not one stretch: choose sizes that divide the devices of a process."
            )
    return slice(needed[0][0], needed[-1][1])


def place_batch(mesh: Mesh, batch: Any, rows: int) -> Any:
    """Returns the global batch of which this process has its ``local_rows``.

    Args:
        mesh: of the training.
        batch: a tree of numpy arrays whose first axis is the rows of ``local_rows``.
        rows: of the whole batch.
    """
    sharding, mine = batch_sharding(mesh), local_rows(mesh, rows)

    def place(leaf: Any) -> jax.Array:
        if len(leaf) != mine.stop - mine.start:
            raise ConfigError(
                f"a process was given {len(leaf)} rows of a batch and needs rows {mine.start} to "
                f"{mine.stop} of {rows}: see local_rows."
            )

        # Asked for by index, so that it does not matter which processes hold the same rows.
        def part(index: Any) -> np.ndarray:
            start, stop, _ = index[0].indices(rows)
            return leaf[start - mine.start : stop - mine.start]

        return jax.make_array_from_callback((rows, *leaf.shape[1:]), sharding, part)

    return jax.tree.map(place, batch)


def check_rows(mesh: AnyMesh, rows: int, accumulate: int = 1) -> None:
    """Checks that a batch divides over the devices, and so does each of its micro-batches.

    Raises:
        ConfigError: naming the numbers.
    """
    devices = mesh.shape[DATA] * mesh.shape[FSDP]
    if rows % (devices * accumulate):
        parts = f" in each of accumulate={accumulate} micro-batches" if accumulate > 1 else ""
        raise ConfigError(
            f"a batch of {rows} utterances does not divide over the {devices} devices of "
            f"data={mesh.shape[DATA]}, fsdp={mesh.shape[FSDP]}{parts}: choose a multiple of "
            f"{devices * accumulate}."
        )
