"""Transformers 4.57, the last with Flax; its calls are compiled whole, as its guides recommend."""

# Its packages live in an environment of their own, unseen by type checkers.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from transformers import FlaxAutoModelForSpeechSeq2Seq

PACKAGES = ("transformers", "jax", "jaxlib", "flax", "numpy")


def load(request: dict[str, Any]) -> Callable[[], Any]:
    """Returns a function that does the task once."""
    model = _model(request["folder"])
    inputs = np.load(request["inputs"])
    settings = _lengths(request["settings"])
    encoded = jax.jit(lambda params, sounds: model.encode(sounds, params=params)[0])
    generated = jax.jit(lambda params, sounds: model.generate(sounds, params=params, **settings)[0])

    def encode() -> None:
        encoded(model.params, inputs).block_until_ready()

    def generate() -> list[list[int]]:
        return np.asarray(generated(model.params, inputs)).tolist()

    return {"encoder": encode}.get(request["task"], generate)


def _lengths(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings with lengths that count the start token, the only ones it knows."""
    names = {"min_new_tokens": "min_length", "max_new_tokens": "max_length"}
    return {names.get(key, key): value + (key in names) for key, value in settings.items()}


@lru_cache(maxsize=1)
def _model(folder: str) -> Any:
    model = FlaxAutoModelForSpeechSeq2Seq.from_pretrained(folder, from_pt=True)
    prompt = getattr(model.generation_config, "no_timestamps_token_id", None)
    if prompt is not None:  # Whisper's; today's checkpoints no longer say that it is forced
        model.generation_config.forced_decoder_ids = [(1, prompt)]
    return model
