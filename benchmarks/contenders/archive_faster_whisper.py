"""faster-whisper on a long recording: its own segmentation by silero, segments in batches."""

# Its packages live in an environment of their own, unseen by type checkers.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from collections.abc import Callable
from typing import Any

from faster_whisper import BatchedInferencePipeline, WhisperModel

PACKAGES = ("faster-whisper", "ctranslate2", "numpy")


def load(request: dict[str, Any], compute_type: str) -> Callable[[], dict[str, Any]]:
    """Returns a function that transcribes the recording once.

    Args:
        request: ``converted``, the folder of the model in CTranslate2's format, ``recording``,
            ``batch``.
        compute_type: of CTranslate2.
    """
    model = BatchedInferencePipeline(WhisperModel(request["converted"], compute_type=compute_type))

    def work() -> dict[str, Any]:
        started, first, texts = time.perf_counter(), None, []
        settings = {"batch_size": request["batch"], "beam_size": 1, "without_timestamps": True}
        segments, _ = model.transcribe(request["recording"], **settings)
        for segment in segments:
            first = first or time.perf_counter() - started
            texts.append(segment.text)
        return {"text": " ".join(texts), "first": first}

    return work
