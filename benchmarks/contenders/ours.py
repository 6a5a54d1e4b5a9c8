"""This package."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from speech_ed_flax import FlaxSpeechEncoderDecoderModel

PACKAGES = ("speech_ed_flax", "jax", "jaxlib", "flax", "numpy")


def load(request: dict[str, Any], **options: Any) -> Callable[[], Any]:
    """Returns a function that does the task once; ``options`` are those of ``from_pretrained``."""
    model = _model(request["folder"], **options)
    inputs = np.load(request["inputs"])

    def encode() -> None:
        jax.block_until_ready(model.encode(inputs).last_hidden_state)

    def generate() -> list[list[int]]:
        return model.generate(inputs, **request["settings"]).sequences.tolist()

    def transcribe() -> None:
        model.transcribe([(sound, 16000) for sound in inputs])

    return {"encoder": encode, "transcribe": transcribe}.get(request["task"], generate)


@lru_cache(maxsize=1)
def _model(folder: str, **options: Any) -> FlaxSpeechEncoderDecoderModel:
    return FlaxSpeechEncoderDecoderModel.from_pretrained(folder, **options)
