"""English telephone prompts and what they mean in another language, as manifests to train on.

    apt-get download asterisk-core-sounds-en-wav asterisk-core-sounds-{en,fr,es,it,ru}
    for package in asterisk-core-sounds-*.deb; do dpkg-deb -x $package prompts; done
    python benchmarks/translation_data.py prompts data/translation --languages fr es it ru

The folder that the packages are unpacked to holds recordings of Allison Smith (8 kHz, CC-BY-SA-3.0)
and the texts of the same prompts in each language (CC-BY-SA-3.0, Italian and Russian CC-BY-3.0).
For every language ``OUT/LANGUAGE/train.tsv`` and ``test.tsv`` are written: an English recording,
its duration and the text in that language. A prompt is held out by a hash of its name, so that it
is held out in every language and on every machine; prompts that say in English what a held-out one
says are left out of training. Prompts that only differ in a word may stand on both sides.
"""

import argparse
import csv
import gzip
import hashlib
import os
import re
from pathlib import Path

import soundfile

SOUNDS = Path("usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = "usr/share/doc/asterisk-core-sounds-{0}/core-sounds-{0}.txt.gz"

_NOT_SPOKEN = re.compile(r"[\[(<].*?[\])>]")
"""Remarks, such as ``[@]`` or ``(emphase)``; a prompt with nothing else is a tone or silence."""


def texts_of(packages: Path, language: str) -> dict[str, str]:
    """Returns the spoken text of each prompt by its name."""
    texts = {}
    with gzip.open(packages / TEXTS.format(language), "rt", encoding="utf-8") as lines:
        for line in lines:
            name, colon, text = line.partition(":")
            spoken = " ".join(_NOT_SPOKEN.sub(" ", text).split()).strip('“”" ')
            if colon and spoken and not name.startswith(";"):
                texts[name.strip()] = spoken
    return texts


def is_held_out(name: str) -> bool:
    """Tells whether a prompt belongs to the tenth that is tested on."""
    return hashlib.sha256(name.encode()).digest()[0] < 256 / 10


def rows_of(
    packages: Path, language: str, folder: Path, longest: float
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Returns the rows to train on and those to test on.

    Args:
        packages: folder that the packages are unpacked to.
        language: of the texts.
        folder: that paths are relative to.
        longest: most seconds of a recording; longer prompts are left out of both.
    """
    english, translated = texts_of(packages, "en"), texts_of(packages, language)
    train, test = [], []
    held_out = {english[name].casefold() for name in english if is_held_out(name)}
    for name in sorted(english.keys() & translated.keys()):
        recording = packages / SOUNDS / f"{name}.wav"
        if not recording.exists():
            continue
        row = {
            "audio": os.path.relpath(recording, folder),
            "duration": f"{soundfile.info(recording).duration:.3f}",
            "language": language,
            "text": translated[name],
            "english": english[name],
        }
        if float(row["duration"]) > longest:
            continue
        if is_held_out(name):
            test.append(row)
        elif english[name].casefold() not in held_out:
            train.append(row)
    return train, test


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes a manifest."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(
            file, rows[0], delimiter="\t", quoting=csv.QUOTE_NONE, quotechar=None
        )
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Writes the manifests and prints how many prompts each holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packages", type=Path, help="folder that the packages are unpacked to")
    parser.add_argument("output", type=Path)
    parser.add_argument("--languages", nargs="+", default=["fr"], choices=["fr", "es", "it", "ru"])
    parser.add_argument("--longest", type=float, default=8.0, help="seconds; default: 8")
    options = parser.parse_args()
    for language in options.languages:
        folder = (options.output / language).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        packages = options.packages.resolve()
        for name, rows in zip(
            ("train", "test"), rows_of(packages, language, folder, options.longest), strict=True
        ):
            write(folder / f"{name}.tsv", rows)
            minutes = sum(float(str(row["duration"])) for row in rows) / 60
            print(f"{folder / name}.tsv: {len(rows)} prompts, {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
