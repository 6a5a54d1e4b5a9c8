"""Whisper on real speech, here and in PyTorch: the same tokens? the same word error rate?

    python benchmarks/whisper_real_speech.py MODEL MANIFEST [MANIFEST ...] [--clips 50]
        [--weights float32 bfloat16 int8]

``MANIFEST`` is a TSV file with columns ``path`` (relative to it) and ``text``. Prints a table and
writes it as JSON. Needs torch and jiwer (the dev extra).
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.files import read_audio


def clips_of(manifest: Path, count: int | None) -> list[tuple[Path, str]]:
    """Returns evenly spaced ``(file, reference)`` pairs of a manifest; all if count is None."""
    with manifest.open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    chosen = np.linspace(0, len(rows) - 1, min(count or len(rows), len(rows))).astype(int)
    return [(manifest.parent / rows[i]["path"], rows[i]["text"]) for i in chosen]


def error_rate(references: list[str], texts: list[str]) -> float:
    """Returns the word error rate in percent, after Whisper's English normaliser."""
    normalise = EnglishTextNormalizer({})
    pairs = [(normalise(r), normalise(t)) for r, t in zip(references, texts, strict=True)]
    return 100 * jiwer.wer([r for r, _ in pairs], [t for _, t in pairs])


PRECISIONS: dict[str, dict[str, str]] = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "int8": {"weights": "int8"},
}
"""How our weights are kept, and the options of ``from_pretrained`` that say so."""


def compare(models: dict[str, Any], peer, manifest: Path, count: int | None, batch: int) -> list:
    """Transcribes clips with all models and the peer, of the same features; a row for each."""
    clips = clips_of(manifest, count)
    any_model = next(iter(models.values()))
    tokens: dict[str, list] = {name: [] for name in (*models, "PyTorch")}
    seconds = dict.fromkeys(tokens, 0.0)
    for first in range(0, len(clips), batch):
        sounds = [read_audio(path) for path, _ in clips[first : first + batch]]
        rows = sounds + [np.zeros(0, np.float32)] * (batch - len(sounds))
        features, _ = any_model.processor.features.features(rows)
        for name in tokens:
            start = time.perf_counter()
            found = generate(models.get(name), peer, features)
            seconds[name] += time.perf_counter() - start
            tokens[name] += found[: len(sounds)].tolist()
    end = any_model.config.eos_token_id
    texts = {
        name: any_model.processor.tokenizer.batch_decode(found, skip_special_tokens=True)
        for name, found in tokens.items()
    }
    references = [text for _, text in clips]
    return [
        {
            "set": manifest.parent.name,
            "weights": name,
            "clips": len(clips),
            "tokens of PyTorch": sum(
                trim(ours, end) == trim(theirs, end)
                for ours, theirs in zip(found, tokens["PyTorch"], strict=True)
            ),
            "WER %": round(error_rate(references, texts[name]), 2),
            "seconds": round(seconds[name], 1),
        }
        for name, found in tokens.items()
    ]


def generate(model: Any | None, peer: Any, features: np.ndarray) -> np.ndarray:
    """Returns the tokens of a model of ours or, if there is none, of the peer."""
    if model is not None:
        return model.generate(features).sequences
    with torch.no_grad():
        return peer.generate(torch.from_numpy(features)).numpy()


def trim(tokens: list[int], end: int) -> list[int]:
    """Returns the text tokens: without Whisper's prompt, which PyTorch drops, and the end."""
    return [token for token in tokens if token < end]


def main() -> None:
    """Runs the comparison and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub name of an English-only Whisper")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, help="clips of each manifest (default: all)")
    parser.add_argument("--weights", nargs="+", choices=PRECISIONS, default=["float32"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("whisper_real_speech.json"))
    options = parser.parse_args()
    models = {
        name: FlaxSpeechEncoderDecoderModel.from_pretrained(options.model, **PRECISIONS[name])
        for name in options.weights
    }
    peer = WhisperForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    results = [
        row
        for manifest in options.manifests
        for row in compare(models, peer.eval(), manifest, options.clips, options.batch)
    ]
    print("| " + " | ".join(results[0]) + " |\n|" + " --- |" * len(results[0]))
    for result in results:
        print("| " + " | ".join(map(str, result.values())) + " |")
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
