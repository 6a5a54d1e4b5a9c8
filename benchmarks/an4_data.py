"""CMU AN4 as manifests: speakers to develop on apart, and short utterances of a speaker joined.

    python benchmarks/an4_data.py an4 data/an4

``an4`` holds ``train.tsv`` (path, speaker, seconds, text), the recordings and
``dev_speakers.txt``. Written are ``dev.tsv`` and ``train.tsv`` with the utterances as they are, and
``joined.tsv``: in each round the utterances of every speaker are shuffled and laid end to end, as
many as fit; to them come the single ones. Whisper computes seconds of silence behind an utterance
of AN4, which lasts 2.7 s on average: joined, an epoch takes less than half the time, and every
round is an augmentation too.
"""

import argparse
import csv
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile


@dataclass(frozen=True)
class Utterance:
    """A recording of AN4 and what is said in it."""

    path: Path
    speaker: str
    seconds: float
    text: str


def read(folder: Path) -> tuple[list[Utterance], list[Utterance]]:
    """Returns the utterances to train on and those of the development speakers."""
    held_out = set((folder / "dev_speakers.txt").read_text().split())
    train, dev = [], []
    with (folder / "train.tsv").open(newline="") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            path, seconds = (folder / row["path"]).resolve(), float(row["seconds"])
            utterance = Utterance(path, row["speaker"], seconds, row["text"])
            (dev if utterance.speaker in held_out else train).append(utterance)
    return train, dev


def joined(
    utterances: Sequence[Utterance], longest: float, draw: random.Random
) -> Iterator[list[Utterance]]:
    """Yields every utterance once, with others of its speaker up to ``longest`` seconds."""
    for speaker in sorted({utterance.speaker for utterance in utterances}):
        left = [utterance for utterance in utterances if utterance.speaker == speaker]
        draw.shuffle(left)
        while left:
            group, total = [], 0.0
            for utterance in list(left):
                if not group or total + utterance.seconds <= longest:
                    group.append(utterance)
                    total += utterance.seconds
                    left.remove(utterance)
            yield group


def write(path: Path, rows: Sequence[tuple[Path, str, float, str]]) -> None:
    """Writes a manifest and prints what it holds."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("audio", "speaker", "duration", "text"))
        writer.writerows(
            (audio, name, f"{seconds:.3f}", text) for audio, name, seconds, text in rows
        )
    print(f"{path}: {len(rows)} rows, {sum(row[2] for row in rows) / 60:.1f} minutes")


def write_joined(
    output: Path, groups: Sequence[list[Utterance]]
) -> Iterator[tuple[Path, str, float, str]]:
    """Writes the sound of each group; yields its row."""
    (output / "joined").mkdir(exist_ok=True)
    for number, group in enumerate(groups):
        sounds = [soundfile.read(utterance.path, dtype="int16") for utterance in group]
        samples, rate = np.concatenate([sound for sound, _ in sounds]), sounds[0][1]
        path = output / "joined" / f"{number:05d}.flac"
        soundfile.write(path, samples, rate)
        text = " ".join(utterance.text for utterance in group)
        yield path.relative_to(output), group[0].speaker, len(samples) / rate, text


def main() -> None:
    """Writes the manifests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("an4", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--longest", type=float, default=6.3, help="seconds of what is joined")
    parser.add_argument("--singles", type=int, default=850, help="utterances that stay alone")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    train, dev = read(options.an4)
    options.output.mkdir(parents=True, exist_ok=True)
    for name, utterances in (("train", train), ("dev", dev)):
        rows = [(one.path, one.speaker, one.seconds, one.text) for one in utterances]
        write(options.output / f"{name}.tsv", rows)
    draw = random.Random(options.seed)
    groups = [[utterance] for utterance in draw.sample(train, options.singles)]
    for _ in range(options.rounds):
        groups += joined(train, options.longest, draw)
    write(options.output / "joined.tsv", list(write_joined(options.output, groups)))


if __name__ == "__main__":
    main()
