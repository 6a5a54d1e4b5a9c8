"""faster-whisper, which is CTranslate2: fed with the same log-mel features as the others."""

# Its packages live in an environment of their own, unseen by type checkers.
# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import faster_whisper
import numpy as np
from ctranslate2 import StorageView

PACKAGES = ("faster-whisper", "ctranslate2", "numpy")

_PROMPT = ["<|startoftranscript|>", "<|notimestamps|>"]


def load(request: dict[str, Any], compute_type: str) -> Callable[[], Any]:
    """Returns a function that does the task once.

    Args:
        request: see ``worker``; the model is converted beside its inputs, once.
        compute_type: of CTranslate2.
    """
    inputs = np.load(request["inputs"])
    folder = convert(Path(request["folder"]), Path(request["inputs"]).with_name("ctranslate2"))
    model = _model(folder, compute_type)
    settings = _named(request["settings"])

    def encode() -> None:
        model.model.encode(StorageView.from_array(inputs), to_cpu=True)

    def generate() -> list[list[int]]:
        features = StorageView.from_array(inputs)
        found = model.model.generate(features, [_PROMPT] * len(inputs), **settings)
        return [result.sequences_ids[0] for result in found]

    def transcribe() -> None:
        for sound in inputs:
            segments, _ = model.transcribe(sound, beam_size=1, without_timestamps=True)
            "".join(segment.text for segment in segments)

    return {"encoder": encode, "transcribe": transcribe}.get(request["task"], generate)


def _named(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns transformers' settings under CTranslate2's names."""
    return {"beam_size": settings.get("num_beams", 1), "sampling_topk": settings.get("top_k", 1)}


def convert(checkpoint: Path, folder: Path) -> Path:
    """Returns the folder of the checkpoint in CTranslate2's format, made if it is not there.

    PyTorch does it in a process of its own, so that it does not count in this one's memory.
    """
    if not (folder / "model.bin").exists():
        paths = ["--model", checkpoint, "--output_dir", folder, "--copy_files", "tokenizer.json"]
        module = "ctranslate2.converters.transformers"
        subprocess.run([sys.executable, "-m", module, *map(str, paths)], check=True)
    return folder


@lru_cache(maxsize=1)
def _model(folder: Path, compute_type: str) -> Any:
    return faster_whisper.WhisperModel(str(folder), compute_type=compute_type)
