"""transformers' pipeline for speech recognition, with PyTorch, on a long recording."""

import time
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
from transformers import AutoProcessor, WhisperForConditionalGeneration, pipeline

PACKAGES = ("torch", "transformers", "numpy")


def load(request: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Returns a function that transcribes the recording once, by overlapping chunks of 30 s."""
    processor = AutoProcessor.from_pretrained(request["folder"])
    recognise = pipeline(
        "automatic-speech-recognition",
        model=WhisperForConditionalGeneration.from_pretrained(request["folder"]),
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
        chunk_length_s=30,
        batch_size=request["batch"],
    )

    def work() -> dict[str, Any]:
        started = time.perf_counter()
        text = recognise(_samples(request["recording"]))["text"]
        return {"text": text, "first": time.perf_counter() - started}

    return work


def _samples(path: str) -> dict[str, Any]:
    """Returns the sound itself: the pipeline would ask the program ``ffmpeg`` for it."""
    with wave.open(path) as sound:
        content = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
        return {"raw": content.astype(np.float32) / 32768, "sampling_rate": sound.getframerate()}
