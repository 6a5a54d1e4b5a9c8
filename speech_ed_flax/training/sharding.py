"""Where the state and the batches of a training lie on the mesh."""

from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.mesh import DATA, FSDP, AnyMesh
from speech_ed_flax.model import SpeechEncoderDecoder, abstract_params
from speech_ed_flax.partition import ROWS, param_sharding, place_of
from speech_ed_flax.paths import map_paths
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.state import TrainState, create
from speech_ed_flax.types import Params


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
