"""PyTorch transformers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch._inductor import config as inductor
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

PACKAGES = ("torch", "transformers", "numpy")

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(
    request: dict[str, Any],
    dtype: str = "float32",
    autocast: bool = False,
    compiled: bool = False,
) -> Callable[[], Any]:
    """Returns a function that does the task once.

    Args:
        request: see ``worker``.
        dtype: of the weights, and so of the computation.
        autocast: whether float32 weights compute in bfloat16 where PyTorch holds it safe.
        compiled: whether the encoder goes through ``torch.compile``, with its weights frozen.
    """
    model = _model(request["folder"], dtype)
    encoder = model.get_encoder()
    if compiled:
        torch._dynamo.reset()
        inductor.freezing = True
        encoder = torch.compile(encoder, dynamic=False)
    sounds = np.load(request["inputs"])
    inputs = torch.from_numpy(sounds).to(_DEVICE, getattr(torch, dtype))

    def encode() -> None:
        with torch.no_grad(), _precision(autocast):
            encoder(inputs)
        _wait()

    def generate() -> list[list[int]]:
        with torch.no_grad(), _precision(autocast):
            return model.generate(inputs, **request["settings"]).tolist()

    def transcribe() -> None:
        processor = AutoProcessor.from_pretrained(request["folder"])
        heard = processor(list(sounds), sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            found = model.generate(heard.input_features.to(_DEVICE))
        processor.batch_decode(found, skip_special_tokens=True)

    return {"encoder": encode, "transcribe": transcribe}.get(request["task"], generate)


@lru_cache(maxsize=1)
def _model(folder: str, dtype: str) -> Any:
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=torch.float32)
    return model.eval().to(_DEVICE, getattr(torch, dtype))


def _precision(autocast: bool) -> AbstractContextManager:
    return torch.autocast(_DEVICE, torch.bfloat16) if autocast else nullcontext()


def _wait() -> None:
    if _DEVICE == "cuda":
        torch.cuda.synchronize()
