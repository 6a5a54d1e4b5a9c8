"""How fast is an hour of speech transcribed, here and in every peer, and how well?

    python benchmarks/archive.py openai/whisper-tiny.en clips.tsv more.tsv --minutes 60 --rounds 2 \
        --json archive.json --python faster_whisper=WHISPER/bin/python
    python benchmarks/archive.py --table archive.json

Clips of the manifests (columns ``path`` and ``text``) are shuffled and laid end to end by turns,
with silences of 0.3 to 2 s, to one recording. Every contender, a warm process, transcribes it
greedily in batches of 8 segments; they take turns. Printed are seconds of sound per second of work
(RTFx), the word error rate after Whisper's English normaliser, the time to the first text and the
peak of resident memory.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from contenders.machine import machine
from contenders.process import ContenderError, Process
from contenders.table import markdown, number

from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.conversion.hub import resolve
from speech_ed_flax.metrics import score

RATE = 16_000
CONTENDERS = {
    "ours": ("archive_ours", {}),
    "transformers pipeline": ("archive_pipeline", {}),
    "faster-whisper": ("archive_faster_whisper", {"compute_type": "float32"}),
    "faster-whisper int8": ("archive_faster_whisper", {"compute_type": "int8"}),
}
"""Name, file of ``contenders`` and options of each; interpreters are named by the file's ending."""


def main() -> None:
    """Measures, or prints the table of an earlier measurement."""
    options = _options()
    if options.table:
        print(_table(json.loads(options.table.read_text())))
        return
    with tempfile.TemporaryDirectory() as folder:
        document = _measure(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    print(_table(document))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--table", type=Path, help="print the table of this file")
    parser.add_argument("model", nargs="?", help="a Whisper checkpoint, or one only we can load")
    parser.add_argument("manifests", nargs="*", type=Path)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--python", action="append", default=[], metavar="NAME=INTERPRETER")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    return parser.parse_args()


def make_recording(manifests: Sequence[Path], minutes: float, path: Path) -> str:
    """Writes clips, by turns from each manifest, as one recording; returns what is said in it."""
    random = np.random.default_rng(0)
    said, seconds = [], 0.0
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sets = [random.permutation(np.array(_clips(manifest), object)) for manifest in manifests]
        for clip, text in (one for ones in zip_longest(*sets) for one in ones if one is not None):
            samples = read_audio(clip)
            silence = np.zeros(int(random.uniform(0.3, 2) * RATE), np.float32)
            joined = np.concatenate([samples, silence])
            seconds += len(joined) / RATE
            if seconds > 60 * minutes:
                break
            sound.writeframes((np.clip(joined, -1, 1) * 32767).astype(np.int16).tobytes())
            said.append(text)
    return " ".join(said)


def _clips(manifest: Path) -> list[tuple[Path, str]]:
    with manifest.open() as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [(manifest.parent / row["path"], row["text"]) for row in rows]


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    pythons = dict(given.split("=", 1) for given in options.python)
    recording = folder / "recording.wav"
    said = make_recording(options.manifests, options.minutes, recording)
    with wave.open(str(recording)) as sound:
        seconds = sound.getnframes() / RATE
    request = {"folder": str(resolve(options.model)), "recording": str(recording)}
    request |= {"batch": options.batch, "converted": str(folder / "ctranslate2")}
    if any("faster" in name for name in options.contenders) and "faster_whisper" in pythons:
        _convert(pythons["faster_whisper"], request)
    crew: dict[str, Process] = {}
    found: dict[str, Any] = {}
    for name in options.contenders:
        module, settings = CONTENDERS[name]
        python = pythons.get(module.removeprefix("archive_"))
        if python is None and "faster" in name:
            print(f"{name} is left out: --python faster_whisper=INTERPRETER", file=sys.stderr)
            continue
        try:
            process = Process(python or sys.executable, module, settings, folder / f"{name}.log")
            process.ask("load", **request)
        except ContenderError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
            continue
        crew[name], found[name] = process, {"seconds": [], "first": []}
    for round_ in range(options.rounds + 1):  # the first compiles, and does not count
        for name, process in crew.items():
            taken = process.ask("run")["seconds"]
            result = process.ask("result")["result"]
            print(f"round {round_}, {name}: {taken:.1f} s", file=sys.stderr, flush=True)
            if round_ == 0:
                rates = score([said], [result["text"]], ("wer",), normalizer="english")
                found[name] |= {"compiling": taken, "wer": rates.metrics["wer"].value}
            else:
                found[name]["seconds"].append(taken)
                found[name]["first"].append(result["first"])
                found[name]["peak"] = process.ask("memory")["bytes"]
    return {
        "machine": machine(),
        "model": options.model,
        "recording": {"seconds": seconds, "words": len(said.split())},
        "batch": options.batch,
        "contenders": found,
        "versions": {name: process.versions for name, process in crew.items()},
    }


def _convert(python: str, request: dict[str, Any]) -> None:
    """Makes the checkpoint that faster-whisper reads."""
    command = [python, "-m", "ctranslate2.converters.transformers", "--model", request["folder"]]
    command += ["--output_dir", request["converted"], "--copy_files", "tokenizer.json"]
    subprocess.run(command, check=True, stdout=sys.stderr)


def _table(document: dict[str, Any]) -> str:
    """Returns Markdown."""
    sound, ours = document["recording"], document["contenders"].get("ours")
    rows = []
    for name, found in document["contenders"].items():
        speed = sound["seconds"] / median(found["seconds"])
        ratio = ""
        if ours is not None and name != "ours":
            pairs = zip(found["seconds"], ours["seconds"], strict=True)
            ratio = f"**{number(median(theirs / own for theirs, own in pairs))}**"
        first, peak = median(found["first"]), found["peak"] / 2**30
        numbers = (number(speed), ratio, f"{100 * found['wer']:.2f}", number(first), number(peak))
        rows.append([name, *numbers])
    heads = ["contender", "RTFx", "**our RTFx / theirs**", "WER, %", "first text, s", "peak GB"]
    about = f"{sound['seconds'] / 60:.0f} minutes, {sound['words']} words, {document['model']}"
    return f"{about}, batches of {document['batch']}\n\n{markdown(heads, rows)}"


if __name__ == "__main__":
    main()
