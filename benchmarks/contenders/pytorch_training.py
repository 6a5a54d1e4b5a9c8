"""PyTorch transformers, training."""

import ctypes
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSpeechSeq2Seq

PACKAGES = ("torch", "transformers", "numpy")

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def load(
    request: dict[str, Any], autocast: bool = False, kept: bool = False
) -> Callable[[], float]:
    """Returns a function that takes a step and returns its loss.

    Args:
        request: see ``trainings.request_for``.
        autocast: whether float32 weights compute in bfloat16 where PyTorch holds it safe.
        kept: whether glibc keeps freed memory, as it does for us.
    """
    if kept:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD
    model = _model(request["folder"], request["dropout"])
    optimizer = _optimizer(model, request["optimizer"])
    inputs, labels = (
        torch.from_numpy(np.load(request[name])).to(_DEVICE) for name in ("inputs", "labels")
    )

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(_DEVICE, torch.bfloat16) if autocast else nullcontext():
            loss = model(inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), request["optimizer"]["clip"])
        optimizer.step()
        return loss.item()

    return step


def _model(folder: str, dropout: bool) -> Any:
    """Returns the model, without what would make the work of a step a matter of chance."""
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype=torch.float32)
    model.config.encoder.layerdrop = model.encoder.config.layerdrop = 0.0
    model.config.encoder.apply_spec_augment = model.encoder.config.apply_spec_augment = False
    return model.train(dropout).to(_DEVICE)


def _optimizer(model: Any, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Returns AdamW in its fastest form."""
    decayed = [leaf for leaf in model.parameters() if leaf.ndim > 1]
    spared = [leaf for leaf in model.parameters() if leaf.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": settings["weight_decay"]},
        {"params": spared, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, settings["learning_rate"], eps=settings["epsilon"], fused=True)
