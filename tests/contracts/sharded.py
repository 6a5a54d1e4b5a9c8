"""Trains a tiny model on a mesh, and tells what came of it; run by the tests as a process.

A process of its own, because how many devices a CPU is must be said before JAX is imported; several
of them train together if they are told of each other.
"""

import functools
import json
import sys
from typing import Any

import jax
import numpy as np
from contracts.models import batch_of, make_model
from families import DECODERS, SHALLOW, VOCAB, vary

from speech_ed_flax.mesh import PRESETS, MeshSettings, make_mesh
from speech_ed_flax.partition import gather_params
from speech_ed_flax.training.distributed import initialise_distributed
from speech_ed_flax.training.planning.collectives import find_exchanges
from speech_ed_flax.training.settings import OptimizerSettings, StepSettings
from speech_ed_flax.training.sharding import create_on, local_rows, place_batch
from speech_ed_flax.training.step import Batch, make_train_step

MESHES = PRESETS | {
    "tensor": MeshSettings(data=2, fsdp=2, tensor=2),
    "processes": MeshSettings(data=1, fsdp=2, tensor=2),
}

ROWS = 16
STEPS = 5
WATCHED = "encoder/transformer/layers_0/feed_forward/up/weight"


def main(*arguments: str) -> None:
    """Prints a JSON object of findings for each mesh that is named.

    Args:
        *arguments: names of ``MESHES``, with "-still" behind them for no chance; or, before them,
            "host:port,count,number" of the processes.
    """
    if ":" in arguments[0]:
        address, count, number = arguments[0].split(",")
        initialise_distributed(address, int(count), int(number), timeout=120)
        arguments = arguments[1:]
    decoder = vary(DECODERS["bart"], decoder_layers=1, num_hidden_layers=1)
    model = make_model(SHALLOW, decoder)
    findings = {}
    for name in arguments:
        preset, _, still = name.partition("-")
        findings[name] = train(model, MESHES[preset], chance=not still)
    print(json.dumps(findings))


def train(model: Any, mesh_settings: MeshSettings, chance: bool) -> dict[str, Any]:
    """Takes ``STEPS`` steps and returns the losses, and what lies and moves where."""
    settings = StepSettings(
        model.config.pad_token_id,
        model.config.decoder_start_token_id,
        optimizer=OptimizerSettings(learning_rate=1e-2),
        accumulate=2 if chance else 1,
        dropout=chance,
        augment=chance,
    )
    mesh = make_mesh(mesh_settings)
    state = create_on(mesh, model.module, model.params, settings)
    mine = local_rows(mesh, ROWS)
    batch = place_batch(mesh, jax.tree.map(lambda leaf: leaf[mine], whole_batch()), ROWS)
    step: Any = make_train_step(model.module, settings, mesh)
    compiled = step.lower(state, batch).compile()
    watched = watched_in(state.params)
    found = {
        "rows": [mine.start, mine.stop],
        "bytes": sum(shard.data.nbytes for shard in local_shards(state)),
        "parts": parts_of(watched),
        "share": watched.addressable_shards[0].data.size / watched.size,
        "gathered": parts_of(watched_in(gather_params(mesh, state.params))),
        "exchanges": {one.kind: one.count for one in find_exchanges(compiled.as_text())},
    }
    losses = []
    for _ in range(STEPS):
        state, metrics = compiled(state, batch)
        losses.append(float(metrics.loss))
    return found | {"losses": losses}


def whole_batch() -> Batch:
    """Returns rows of different lengths of speech and text."""
    inputs, mask = batch_of([400 - 10 * row for row in range(ROWS)], 400)
    labels = np.random.default_rng(1).integers(5, VOCAB, (ROWS, 8), np.int32)
    lengths = 1 + np.arange(ROWS) % 8
    return Batch(inputs, np.where(np.arange(8) < lengths[:, None], labels, -100), mask)


def watched_in(params: Any) -> jax.Array:
    return functools.reduce(lambda tree, part: tree[part], WATCHED.split("/"), params)


def parts_of(leaf: jax.Array) -> int:
    """Returns how many different parts the devices of this process hold."""
    return len({str(shard.index) for shard in leaf.addressable_shards})


def local_shards(state: Any) -> list[Any]:
    """Returns what the first device of this process holds of parameters and moments."""
    leaves = jax.tree.leaves((state.params, state.optimizer))
    return [leaf.addressable_shards[0] for leaf in leaves]


if __name__ == "__main__":
    main(*sys.argv[1:])
