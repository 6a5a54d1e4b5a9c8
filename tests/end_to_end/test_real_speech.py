"""A real pretrained model on real speech, against PyTorch on the same clips."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.files import read_audio

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
WHISPER = SHARED / "checkpoints" / "whisper-tiny.en"
MANIFESTS = [
    SHARED / "data" / "an4" / "train.tsv",
    SHARED / "data" / "kathleen" / "metadata.tsv",
]
SPEECH = ROOT / "tests" / "data" / "speech.flac"

pytestmark = pytest.mark.skipif(
    not WHISPER.exists(), reason="the pretrained Whisper checkpoint is not on this machine"
)


@pytest.fixture(scope="module")
def model() -> FlaxSpeechEncoderDecoderModel:
    return FlaxSpeechEncoderDecoderModel.from_pretrained(WHISPER)


def test_greedy_tokens_equal_those_of_pytorch_on_ten_clips_of_each_set(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    command = [sys.executable, ROOT / "benchmarks" / "whisper_real_speech.py", WHISPER]
    command += [*MANIFESTS, "--clips", "10", "--batch", "10", "--json", tmp_path / "results.json"]
    # Compiled as users compile: the tests' quick compilation makes a real model slow.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run(command, env=environment, check=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["weights"] for r in results] == ["float32", "PyTorch"] * 2
    assert all((r["clips"], r["tokens of PyTorch"]) == (10, 10) for r in results)
    assert all(ours["WER %"] == theirs["WER %"] for ours, theirs in (results[:2], results[2:]))


def test_transcribe_reads_a_file_a_pair_of_array_and_rate_and_a_list(model):
    text = "Author of the danger trail, Philip steals, etc."
    samples = read_audio(SPEECH)
    assert model.transcribe(SPEECH).text == text
    assert model.transcribe((samples, 16_000)).text == text
    (again,) = model.transcribe([{"array": samples, "sampling_rate": 16_000}])
    assert (again.text, again.error) == (text, None)


def test_a_saved_whisper_gives_the_same_tokens_here_and_loads_in_transformers(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    features, _ = model.processor.features.features([read_audio(SPEECH)])
    np.testing.assert_array_equal(
        model.generate(features).sequences, again.generate(features).sequences
    )
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == "WhisperProcessor"
