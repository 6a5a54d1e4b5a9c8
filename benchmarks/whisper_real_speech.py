"""Whisper on real speech, here and in PyTorch: the same tokens? the same word error rate?

    python benchmarks/whisper_real_speech.py MODEL MANIFEST [MANIFEST ...] [--clips 50]

``MANIFEST`` is a TSV file with columns ``path`` (relative to it) and ``text``. Prints a table and
writes it as JSON. Needs torch and jiwer (the dev extra).
"""

import argparse
import csv
import json
import time
from pathlib import Path

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


def compare(model, peer, manifest: Path, count: int | None, batch: int) -> dict:
    """Transcribes clips on both sides with the same features."""
    clips = clips_of(manifest, count)
    ours, theirs, seconds = [], [], [0.0, 0.0]
    for first in range(0, len(clips), batch):
        sounds = [read_audio(path) for path, _ in clips[first : first + batch]]
        rows = sounds + [np.zeros(0, np.float32)] * (batch - len(sounds))
        features, _ = model.processor.features.features(rows)
        start = time.perf_counter()
        found = model.generate(features).sequences[: len(sounds)]
        middle = time.perf_counter()
        with torch.no_grad():
            expected = peer.generate(torch.from_numpy(features[: len(sounds)])).numpy()
        seconds[0] += middle - start
        seconds[1] += time.perf_counter() - middle
        ours += found.tolist()
        theirs += expected.tolist()
    end = model.config.eos_token_id
    same = sum(trim(a, end) == trim(b, end) for a, b in zip(ours, theirs, strict=True))
    references = [text for _, text in clips]
    texts = [
        model.processor.tokenizer.batch_decode(side, skip_special_tokens=True)
        for side in (ours, theirs)
    ]
    return {
        "set": manifest.parent.name,
        "clips": len(clips),
        "same tokens": same,
        "WER here %": round(error_rate(references, texts[0]), 2),
        "WER PyTorch %": round(error_rate(references, texts[1]), 2),
        "seconds here": round(seconds[0], 1),
        "seconds PyTorch": round(seconds[1], 1),
    }


def trim(tokens: list[int], end: int) -> list[int]:
    """Returns the text tokens: without Whisper's prompt, which PyTorch drops, and the end."""
    return [token for token in tokens if token < end]


def main() -> None:
    """Runs the comparison and prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or Hub name of an English-only Whisper")
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--clips", type=int, help="clips of each manifest (default: all)")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path, default=Path("whisper_real_speech.json"))
    options = parser.parse_args()
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(options.model)
    peer = WhisperForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32)
    results = [
        compare(model, peer.eval(), manifest, options.clips, options.batch)
        for manifest in options.manifests
    ]
    print("| " + " | ".join(results[0]) + " |\n|" + " --- |" * len(results[0]))
    for result in results:
        print("| " + " | ".join(map(str, result.values())) + " |")
    options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
