"""A real pretrained model on real speech, against PyTorch on the same clips."""

import csv
from pathlib import Path

import numpy as np
import pytest

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.files import read_audio

SHARED = Path(__file__).resolve().parents[3] / "shared"
WHISPER = SHARED / "checkpoints" / "whisper-tiny.en"
MANIFESTS = {
    "an4": SHARED / "data" / "an4" / "train.tsv",
    "kathleen": SHARED / "data" / "kathleen" / "metadata.tsv",
}
CLIPS, BATCH = 50, 10

pytestmark = pytest.mark.skipif(
    not WHISPER.exists(), reason="the pretrained Whisper checkpoint is not on this machine"
)


@pytest.fixture(scope="module")
def model() -> FlaxSpeechEncoderDecoderModel:
    return FlaxSpeechEncoderDecoderModel.from_pretrained(WHISPER)


@pytest.fixture(scope="module")
def peer():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    whisper = transformers.WhisperForConditionalGeneration
    return whisper.from_pretrained(WHISPER, dtype=torch.float32).eval()


def clips(name: str) -> list[Path]:
    with MANIFESTS[name].open() as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    chosen = np.linspace(0, len(rows) - 1, CLIPS).astype(int)
    return [MANIFESTS[name].parent / rows[index]["path"] for index in chosen]


@pytest.mark.parametrize("name", MANIFESTS)
def test_greedy_tokens_equal_those_of_pytorch_on_fifty_clips(model, peer, name):
    import torch

    end = model.config.eos_token_id  # the first special token: text is below
    for first in range(0, CLIPS, BATCH):
        sounds = [read_audio(path) for path in clips(name)[first : first + BATCH]]
        features, _ = model.processor.features.features(sounds)
        with torch.no_grad():
            expected = peer.generate(torch.from_numpy(features)).tolist()
        found = model.generate(features).sequences.tolist()
        for ours, theirs in zip(found, expected, strict=True):
            assert [t for t in ours if t < end] == [t for t in theirs if t < end]


def test_transcribe_reads_a_file_a_pair_of_array_and_rate_and_a_list(model):
    text = "Author of the danger trail, Philip steals, etc."
    path = SHARED / "data" / "kathleen" / "flac" / "arctic_a0001_1592748574.flac"
    assert model.transcribe(path).text == text
    samples = read_audio(path)
    assert model.transcribe((samples, 16_000)).text == text
    both = model.transcribe([path, {"array": samples, "sampling_rate": 16_000}])
    assert [result.text for result in both] == [text, text]


def test_a_saved_whisper_gives_the_same_tokens_here_and_loads_in_transformers(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    sounds = [read_audio(path) for path in clips("an4")[:2]]
    features, _ = model.processor.features.features(sounds)
    np.testing.assert_array_equal(
        model.generate(features).sequences, again.generate(features).sequences
    )
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__ == "WhisperProcessor"
