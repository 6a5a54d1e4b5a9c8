"""Compiles one job, and says what it costs; run as a process of its own.

Compilers of hardware that is not there may abort the process that loads them, and each wants its
own environment. The job comes pickled on stdin; the last line of stdout is JSON.
"""

import json
import pickle
import re
import sys
import time
from dataclasses import asdict
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.errors import SpeechError
from speech_ed_flax.generation.generate import generate
from speech_ed_flax.generation.logits import processors, warpers
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.mesh import make_mesh
from speech_ed_flax.model import abstract_params
from speech_ed_flax.partition import gathered_sharding
from speech_ed_flax.training.planning.collectives import find_exchanges
from speech_ed_flax.training.planning.job import Job
from speech_ed_flax.training.planning.report import Costs
from speech_ed_flax.training.sharding import (
    abstract_state,
    batch_sharding,
    state_sharding,
)
from speech_ed_flax.training.step import make_train_step

PROMPT = 1
"""Tokens that every sequence begins with."""


def main() -> None:
    """Compiles the job on stdin."""
    job = pickle.load(sys.stdin.buffer)
    try:
        found: dict[str, Any] = {"costs": asdict(compile_job(job))}
    except SpeechError as error:
        found = {"error": str(error)}
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        found = {"refusal": too_large(str(error))}
    print(json.dumps(found))


def compile_job(job: Job) -> Costs:
    """Compiles a program for the topology of a job."""
    mesh = make_mesh(job.mesh, job.topology.devices())
    lower = {"train": _lower_training, "generate": _lower_generation}[job.program]
    start = time.perf_counter()
    compiled = lower(job, mesh).compile(compiler_options=job.topology.options)
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    flops = (compiled.cost_analysis() or {}).get("flops")
    # XLA counts the loop over micro-batches as one turn.
    turns = job.step.accumulate if job.program == "train" else 1
    return Costs(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        peak=_peak(memory, job.topology.platform),
        flops=None if flops is None else flops * turns,
        exchanges=find_exchanges(compiled.as_text()),
        seconds=round(seconds, 1),
    )


def _peak(memory: Any, platform: str) -> int:
    if platform == "cpu":  # which leaves the temporaries out
        return memory.argument_size_in_bytes + memory.temp_size_in_bytes
    return memory.peak_memory_in_bytes


def _lower_training(job: Job, mesh: Mesh) -> Any:
    state = abstract_state(job.module, job.step)
    placed = _placed(state, state_sharding(mesh, state))
    return make_train_step(job.module, job.step, mesh).lower(placed, _on(mesh, job.batch))


def _lower_generation(job: Job, mesh: Mesh) -> Any:
    """Lowers the search as it runs between steps of training, on their gathered parameters."""
    params = unflatten_dict(abstract_params(job.module), sep="/")
    decoder, batch = job.module.decoder.config, _on(mesh, job.batch)
    settings = GenerationSettings.from_hf(job.generation, PROMPT, decoder.vocab)
    plan = Plan.of(settings, PROMPT, decoder.positions)
    chain = (*processors(settings, PROMPT, decoder.vocab, (), None, None), *warpers(settings))
    rules = Rules(Limits.of(settings, PROMPT, plan), chain, jax.random.key(0))
    whole = NamedSharding(mesh, PartitionSpec())
    prompt = jax.ShapeDtypeStruct((batch.labels.shape[0], PROMPT), jnp.int32, sharding=whole)
    speech = (batch.inputs, batch.mask)
    params = _placed(params, gathered_sharding(mesh, params))
    return generate.lower(job.module, params, *speech, prompt, plan, rules)


def _placed(shapes: Any, places: Any) -> Any:
    def placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    return jax.tree.map(placed, shapes, places)


def _on(mesh: Mesh, batch: Any) -> Any:
    return jax.tree.map(partial(_placed, places=batch_sharding(mesh)), batch)


def too_large(message: str) -> str:
    """Returns a sentence of what a compiler says of a program that does not fit."""
    sizes = re.findall(r"(?<![\w.])(\d[\d.]*)([KMGT])\b", message)
    if len(sizes) < 2:
        return f"does not fit on a device: {message.splitlines()[0]}"
    (needed, unit), (there, other) = sizes[:2]
    return f"needs {needed} {unit}iB of the {there} {other}iB of a device"


if __name__ == "__main__":
    main()
