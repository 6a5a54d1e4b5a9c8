"""Speech-ed-flax on a long recording."""

import time
from collections.abc import Callable
from typing import Any

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.memory import keep_memory
from speech_ed_flax.transcription import Segment

PACKAGES = ("speech_ed_flax", "jax", "numpy")


def load(request: dict[str, Any], **options: Any) -> Callable[[], dict[str, Any]]:
    """Returns a function that transcribes the recording once.

    Args:
        request: ``folder`` of the model, ``recording``, ``batch``.
        **options: of ``from_pretrained``.
    """
    keep_memory()  # as the command line does
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(request["folder"], **options)

    def work() -> dict[str, Any]:
        started, first, texts = time.perf_counter(), None, []
        transcriber = model.transcriber(batch_size=request["batch"])
        for event in transcriber.follow([request["recording"]]):
            if isinstance(event, Segment):
                first = first or time.perf_counter() - started
                texts.append(event.text)
        return {"text": " ".join(texts), "first": first}

    return work
