"""How far from the truth are the times of words? Clips laid end to end tell where some begin.

    python benchmarks/word_times.py openai/whisper-tiny.en clips.tsv --windows 20

``clips.tsv`` has the columns ``path`` and ``text``. Clips are joined, with half a second of silence
between them, to windows of at most 25 s; the first word of each clip begins where the clip's sound
does. Printed are the median and the 90th percentile of the error of those first words that were
recognised, in milliseconds.
"""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import jiwer
import numpy as np
from transformers.models.whisper.english_normalizer import BasicTextNormalizer

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.audio.speech import FRAMES_PER_SECOND, EnergyDetector

RATE, LONGEST, PAUSE = 16_000, 25.0, 0.5
_normalise = BasicTextNormalizer()


@dataclass
class Window:
    """Clips that are heard together; ``begins`` has the number of a word and when it begins."""

    sound: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    words: list[str] = field(default_factory=list)
    begins: dict[int, float] = field(default_factory=dict)

    def add(self, clip: np.ndarray, text: str) -> None:
        """Appends a clip and a pause."""
        onset = np.flatnonzero(EnergyDetector()(clip, RATE))[0] / FRAMES_PER_SECOND
        self.begins[len(self.words)] = len(self.sound) / RATE + onset
        self.words += _normalise(text).split()
        self.sound = np.concatenate([self.sound, clip, np.zeros(int(PAUSE * RATE), np.float32)])


def windows(manifest: Path) -> Iterator[Window]:
    """Yields the clips of a manifest, joined."""
    window = Window()
    with manifest.open() as lines:
        for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
            clip = read_audio(manifest.parent / row["path"])
            if len(window.sound) + len(clip) > (LONGEST - PAUSE) * RATE:
                yield window
                window = Window()
            window.add(clip, row["text"])


def errors(window: Window, found: list) -> Iterator[float]:
    """Yields by how many milliseconds recognised first words are too late."""
    heard = [(_normalise(word.text), word.start) for word in found]
    heard = [(text, start) for text, start in heard if text and " " not in text]
    pairs = jiwer.process_words(" ".join(window.words), " ".join(text for text, _ in heard))
    for chunk in pairs.alignments[0]:
        if chunk.type == "equal":
            for at in range(chunk.ref_start_idx, chunk.ref_end_idx):
                if at in window.begins:
                    start = heard[chunk.hyp_start_idx + at - chunk.ref_start_idx][1]
                    yield 1000 * (start - window.begins[at])


def main() -> None:
    """Prints the errors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--windows", type=int, default=20)
    options = parser.parse_args()
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(options.model)
    found, first_words = [], 0
    for _, window in zip(range(options.windows), windows(options.manifest), strict=False):
        (segment,) = model.transcribe((window.sound, RATE), word_timestamps=True).segments
        found += errors(window, segment.words)
        first_words += len(window.begins)
    distances = np.abs(found)
    print(
        f"{len(found)} of {first_words} first words: error {np.median(distances):.0f} ms in the "
        f"median, {np.percentile(distances, 90):.0f} ms in the 90th percentile, "
        f"{np.median(found):+.0f} ms late"
    )


if __name__ == "__main__":
    main()
