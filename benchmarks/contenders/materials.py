"""The checkpoints and sounds that every contender is given, made once in a scratch folder."""

import csv
import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import jax
import numpy as np
from safetensors import safe_open
from transformers import BartConfig, Wav2Vec2Config

from contenders.workloads import Workload
from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.conversion.config import join
from speech_ed_flax.conversion.hub import resolve
from speech_ed_flax.conversion.processor import Processor

RATE = 16000
_STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
_GAINS = {
    r"decoder/positions/embedding": 20,
    r"decoder/.*cross_attention/out/kernel": 0.25,
    r"decoder/.*(query|key)/kernel": 2,
}
"""Over fresh weights, by path. Fresh ones repeat one token, which would hide a wrong cache; with
these the tokens change with the place and the sound."""


def make(
    scratch: Path, workloads: list[Workload], whisper: str | None, speech: Path | None
) -> dict[str, Any]:
    """Makes what is missing; run it in a process of its own, to leave no JAX behind.

    Args:
        scratch: folder, made if need be.
        workloads: that need materials.
        whisper: folder or Hub name of an English-only Whisper, for workloads that need it.
        speech: folder or TSV manifest of recordings, for the same.

    Returns:
        By name of workload ``{"folder", "inputs"}``, for ``worker``; under "step_parameters" how
        many numbers a step of decoding reads, by model.
    """
    folders = {
        model: _checkpoint(scratch, model, whisper) for model in {w.model for w in workloads}
    }
    made: dict[str, Any] = {
        workload.name: {
            "folder": str(folders[workload.model]),
            "inputs": str(_inputs(scratch, workload, folders[workload.model], speech)),
        }
        for workload in workloads
    }
    return made | {"step_parameters": {m: step_parameters(f) for m, f in folders.items()}}


def _checkpoint(scratch: Path, model: str, whisper: str | None) -> Path:
    """Returns the folder of a model: Whisper's own, or wav2vec2-base + BART-base at random."""
    if model == "whisper":
        assert whisper is not None
        return resolve(whisper)
    folder = scratch / model
    if not (folder / "generation_config.json").exists():
        _random_model(_STABLE if model == "stable" else {}).save_pretrained(folder)
    return folder


def _random_model(encoder: dict[str, Any]) -> FlaxSpeechEncoderDecoderModel:
    decoder = BartConfig(
        d_model=768, decoder_layers=6, decoder_attention_heads=12, decoder_ffn_dim=3072
    )
    config = join(
        Wav2Vec2Config(**encoder),
        decoder,
        decoder_start_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    model = FlaxSpeechEncoderDecoderModel(config, seed=0)
    model.params = jax.tree.map_with_path(_scaled, model.params)
    return model


def _scaled(path: Any, parameter: jax.Array) -> jax.Array:
    """Returns a matrix large enough for signals to survive many layers; the rest as it is."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    gains = [gain for pattern, gain in _GAINS.items() if re.fullmatch(pattern, name)]
    return parameter * 2 * (gains or [1])[0] if parameter.ndim == 2 else parameter


def step_parameters(folder: Path) -> int:
    """Returns how many numbers of a checkpoint one step of decoding must read.

    All of the decoder's except what is read once for a sound (keys and values of cross-attention)
    or row by row (embeddings); the output layer, which is the embedding of tokens, is read whole.
    """
    skipped = (
        "encoder_attn.k_proj",
        "encoder_attn.v_proj",
        "embed_positions",
        "lm_head",
        "proj_out",
    )
    with safe_open(folder / "model.safetensors", "np") as tensors:
        return sum(
            int(np.prod(tensors.get_slice(name).get_shape()))
            for name in tensors.keys()  # noqa: SIM118  it is no dict
            if name.removeprefix("model.").startswith("decoder.")
            and not any(part in name for part in skipped)
        )


def _inputs(scratch: Path, workload: Workload, folder: Path, speech: Path | None) -> Path:
    """Returns the file of a workload's inputs: noise, features of speech, or speech itself."""
    path = scratch / workload.model / f"{workload.seconds}s-{workload.batch}.npy"
    if workload.task == "transcribe":
        path = path.with_stem(path.stem + "-waveforms")
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if workload.model != "whisper":
        shape = (workload.batch, RATE * workload.seconds)
        np.save(path, np.random.default_rng(0).standard_normal(shape, np.float32))
        return path
    assert speech is not None
    sounds = _sounds(speech, workload.seconds, workload.batch)
    if workload.task == "transcribe":
        np.save(path, np.stack(sounds))
        return path
    features: Any = Processor.load(folder, folder).features
    np.save(path, features.features(sounds)[0])
    return path


def _sounds(speech: Path, seconds: int, count: int) -> list[np.ndarray]:
    """Returns clips joined until each sound is ``seconds`` long; a sound begins with a clip."""
    recordings = _recordings(speech)
    Random(0).shuffle(recordings)  # neighbours often say the same
    clips = (read_audio(path) for path in cycle(recordings))
    return [_joined(clips, RATE * seconds) for _ in range(count)]


def _joined(clips: Iterator[np.ndarray], samples: int) -> np.ndarray:
    parts = [next(clips)]
    while sum(map(len, parts)) < samples:
        parts.append(next(clips))
    return np.concatenate(parts)[:samples]


def _recordings(speech: Path) -> list[Path]:
    if speech.is_dir():
        return sorted(path for path in speech.rglob("*") if path.suffix in (".flac", ".wav"))
    with speech.open() as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [speech.parent / row["path"] for row in rows]
