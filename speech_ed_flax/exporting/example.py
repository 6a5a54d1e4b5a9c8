"""Prints what is said: ``pip install jax flatbuffers``, then ``python run.py [sound.wav]``."""

import json
import sys
import wave
from pathlib import Path

import jax.export
import numpy as np

here = Path(__file__).parent
path = sys.argv[1] if len(sys.argv) > 1 else str(here / "sample.npz")
about = json.loads((here / "manifest.json").read_text())
texts = json.loads((here / "vocabulary.json").read_text())["texts"]
program = jax.export.deserialize(bytearray((here / "transcribe.stablehlo").read_bytes()))
weights = {n: w.view(about["dtype"]) for n, w in np.load(here / "weights.npz").items()}
if path.endswith(".wav"):  # for encoders that hear samples: one channel, 16 bits
    with wave.open(path) as sound:
        assert sound.getparams()[:3] == (1, 2, about["sampling_rate"]), sound.getparams()
        x = np.frombuffer(sound.readframes(sound.getnframes()), "<i2") / np.float32(32768)
    x = (x - x.mean()) / np.sqrt(x.var() + 1e-7) if about["features"]["do_normalize"] else x
    longer = -(-max(len(x) - about["shortest"], 0) // about["step"]) * about["step"]
    mask = np.arange(about["shortest"] + longer) < np.full((about["batch"] or 1, 1), len(x))
    speech = {"features": np.pad(x, (0, mask.shape[1] - len(x))) * mask, "mask": mask}
else:  # features and mask, as the sample has them
    speech = np.load(path)
found = program.call(weights, speech["features"], speech["mask"])
for row, length in zip(np.asarray(found["tokens"]), found["lengths"], strict=True):
    said = "".join(texts[token] for token in row[:length])
    print(said.encode("latin-1").decode(errors="replace").strip())  # each character is a byte
