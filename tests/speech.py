"""Small recordings with texts, for tests of what reads and loads them."""

import json
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000


def tone(seconds: float, rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    """Returns a tone, float32 ``[samples]``."""
    return (0.5 * np.sin(2 * np.pi * hertz / rate * np.arange(round(seconds * rate)))).astype("f4")


def write_manifest(folder: Path, seconds: list[float], **columns: list) -> Path:
    """Writes a tone for each row, whose pitch is its number, and ``manifest.jsonl``."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for row, length in enumerate(seconds):
        clip = tone(length, hertz=200.0 + 10 * row)
        soundfile.write(folder / f"{row}.wav", clip, RATE, subtype="PCM_16")
        more = {name: values[row] for name, values in columns.items()}
        lines.append(json.dumps({"audio": f"{row}.wav", "text": f"row {row}"} | more))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path
