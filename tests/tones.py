"""A little language of tones, for trainings that last seconds: what is said is what sounds."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile

PITCHES = {"low": 300, "mid": 900, "high": 2700}
"""Hz of each word."""

RATE = 16_000
WORD = 0.1
"""Seconds of each word."""


def write_tones(folder: Path, count: int, seed: int = 0) -> Path:
    """Writes ``count`` recordings of one to three words each; returns their manifest."""
    random = np.random.default_rng(seed)
    lines = ["audio\ttext"]
    for number in range(count):
        words = random.choice(list(PITCHES), random.integers(1, 4))
        name = f"{seed}-{number}.wav"
        soundfile.write(folder / name, np.concatenate([_sound(word) for word in words]), RATE)
        lines.append(f"{name}\t{' '.join(words)}")
    manifest = folder / f"tones-{seed}.tsv"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def _sound(word: str) -> np.ndarray:
    time = np.arange(int(WORD * RATE)) / RATE
    fade = np.minimum(1, 50 * np.minimum(time, WORD - time))
    return 0.3 * fade * np.sin(2 * np.pi * PITCHES[word] * time)


ENCODER: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16, 16],
    "conv_kernel": [40, 20],
    "conv_stride": [20, 20],
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "mask_time_length": 2,
}
DECODER: dict[str, Any] = {
    "model_type": "bart",
    "d_model": 16,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 16,
}
"""A model that compiles in seconds."""


def training(train: Path, judged: Path, **changes: Any) -> dict[str, Any]:
    """Returns the configuration of a training on tones, as YAML holds it."""
    return {
        "model": {"encoder": ENCODER, "decoder": DECODER, "tokenizer": {"kind": "word"}},
        "train": [str(train)],
        "evaluate": {"dev": str(judged)},
        "data": {
            "batch_seconds": 6.0,
            "shapes": 1,
            "max_rows": 4,
            "speeds": [0.9, 1.0, 1.1],
            "workers": 0,
        },
        "loss": {"ctc_weight": 0.3},
        "optimizer": {"learning_rate": 0.005, "warmup_steps": 20, "steps": 300},
        "evaluation": {"every": 60, "generation": {"max_new_tokens": 6}, "samples": 2},
        "checkpoints": {"every": 25},
        "log": {"every": 20, "tensorboard": False},
        "average": 0.98,
        **changes,
    }
