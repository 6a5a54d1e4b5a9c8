"""Compiles one model for one target, and tells what came of it; run by the tests as a process.

A process of its own, because a compiler for hardware that is not there may abort it.
"""

import json
import re
import sys
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from accelerators.hlo import in_loops
from accelerators.targets import TARGETS
from families import BART, POSITIONS, WAVEFORM, joint
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from transformers import BartConfig, GenerationConfig, Wav2Vec2Config, WhisperConfig

from speech_ed_flax.compiled import encode
from speech_ed_flax.generation.generate import generate
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.model import SpeechEncoderDecoder, abstract_params, build
from speech_ed_flax.precision import Narrow

KERNELS = re.compile(r'custom_call_target="(tpu_custom_call|__cudnn\$fmha\w+)"')
"""Calls of splash attention and of cuDNN's."""

EXCHANGES = {"all-gather", "all-to-all", "collective-permute", "reduce-scatter"}

FLAGS = {1, 2}
"""Numbers of an all-reduce that ends the search."""

BATCH = 8
SAMPLES = 4000
"""A quarter of a second, of which the tiny encoder makes 199 frames: enough for every kernel."""

SETTINGS: dict[str, dict[str, int]] = {"greedy": {}, "beam": {"num_beams": 5}}

# Heads of 16 channels: cuDNN computes multiples of 8.
_WAVEFORM = WAVEFORM | {"hidden_size": 32, "num_attention_heads": 2}
_BART = BART | {"d_model": 32, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
_BART |= {"encoder_ffn_dim": 40, "decoder_ffn_dim": 40, "vocab_size": 56}
_IDS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 0}
_WHISPER = WhisperConfig(
    **_BART | _IDS,
    num_mel_bins=8,
    max_source_positions=150,
    max_target_positions=POSITIONS,
    suppress_tokens=None,
    begin_suppress_tokens=None,
)
MODELS = {
    "wav2vec2-bart": joint(
        Wav2Vec2Config(**_WAVEFORM, feat_extract_norm="group"),
        BartConfig(**_BART | _IDS, max_position_embeddings=POSITIONS, forced_eos_token_id=None),
    ),
    "whisper": joint(_WHISPER, _WHISPER),
}


def main(target: str, model: str, attention: str, dtype: str, *programs: str) -> None:
    """Compiles ``programs`` ("encode", "greedy", "beam") and prints a JSON object of findings."""
    chosen, module = TARGETS[target], build(MODELS[model], attention=attention)
    mesh = chosen.mesh()
    params = abstract(module, mesh, jnp.dtype(dtype), emulated=target == "cpu")
    findings = {}
    for name in programs:
        plan, rules = search(module, name)
        given = (params, *speech(module, mesh), rules)
        start = time.perf_counter()
        lowered = on_mesh(program(module, name, plan), mesh, attention).lower(*given)
        compiled = lowered.compile(compiler_options=chosen.options)
        text = compiled.as_text()
        findings[name] = {
            "seconds": round(time.perf_counter() - start, 1),
            "peak_bytes": compiled.memory_analysis().peak_memory_in_bytes,
            "kernels": len(KERNELS.findall(text)),
            **in_decoding(text, module, plan, mesh.size),
        }
    print(json.dumps(findings))


def abstract(module: SpeechEncoderDecoder, mesh: Mesh, dtype: Any, emulated: bool) -> Any:
    """Returns parameters without values, whole on every device.

    Where bfloat16 is emulated it is kept only, and computed in float32, as the front door does.
    """

    def leaf(of: Any) -> Any:
        kept = jax.ShapeDtypeStruct(of.shape, dtype, sharding=NamedSharding(mesh, P()))
        return Narrow(kept, None, jnp.float32) if emulated and dtype != jnp.float32 else kept

    flat = {path: leaf(of) for path, of in abstract_params(module).items()}
    return unflatten_dict(flat, sep="/")


def speech(module: SpeechEncoderDecoder, mesh: Mesh) -> tuple[Any, Any, Any]:
    """Returns inputs, mask and prompt without values, sharded over the batch."""
    sharded = partial(jax.ShapeDtypeStruct, sharding=NamedSharding(mesh, P("data")))
    prompt = sharded((BATCH, 1), jnp.int32)
    shape = module.encoder.config.input_shape
    if len(shape) == 2:
        return sharded((BATCH, *shape), jnp.float32), None, prompt
    waveforms = sharded((BATCH, SAMPLES), jnp.float32)
    return waveforms, sharded((BATCH, SAMPLES), bool), prompt


def search(module: SpeechEncoderDecoder, name: str) -> tuple[Plan, Rules]:
    """Returns how a program searches."""
    decoder = module.decoder.config
    hf = GenerationConfig(**_IDS, max_new_tokens=20, **SETTINGS.get(name, {}))
    settings = GenerationSettings.from_hf(hf, 1, decoder.vocab)
    plan = Plan.of(settings, 1, decoder.positions)
    return plan, Rules(Limits.of(settings, 1, plan))


def program(module: SpeechEncoderDecoder, name: str, plan: Plan) -> Any:
    """Returns a function of parameters, inputs, mask, prompt and rules."""

    def run(params: Any, inputs: Any, mask: Any, prompt: Any, rules: Rules) -> Any:
        if name == "encode":
            return encode(module, params, inputs, mask, None).last_hidden_state
        return generate(module, params, inputs, mask, prompt, plan, rules).found.tokens

    return run


def on_mesh(run: Any, mesh: Mesh, attention: str) -> Any:
    """Compiles a program for a mesh: JAX partitions it, unless it holds what cannot be."""
    if attention != "splash":
        return jax.jit(run)
    specs = (P(), P("data"), P("data"), P("data"), P())
    mapped = jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=P("data"), check_vma=False)
    return jax.jit(mapped)


def in_decoding(
    text: str, module: SpeechEncoderDecoder, plan: Plan, devices: int
) -> dict[str, list[str]]:
    """Returns what the loops of a compiled program do to the cache, to weights and across devices.

    Arrays are known by how many numbers they hold, as XLA may reshape them.
    """
    layer = module.decoder.config.layer
    cache = {BATCH // devices * layer.width * plan.cache_length * plan.copies}
    weights = {leaf.size for leaf in abstract_params(module).values() if len(leaf.shape) == 2}
    body = in_loops(text)

    def lines(opcodes: set[str], sizes: set[int]) -> list[str]:
        chosen = (one for one in body if one.opcode.removesuffix("-start") in opcodes)
        return [one.line for one in chosen if sizes.intersection(one.sizes)]

    everything = {size for one in body for size in one.sizes}
    return {
        "cache_writes": lines({"dynamic-update-slice"}, cache),
        "cache_copies": lines({"copy", "transpose", "gather"}, cache),
        "weight_converts": lines({"convert"}, weights),
        # All devices may agree whether any of them still searches.
        "exchanges": lines(EXCHANGES, everything) + lines({"all-reduce"}, everything - FLAGS),
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
