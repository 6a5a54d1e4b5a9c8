"""The model of the package: small, described, and heard without a network or an option."""

import subprocess
import sys

import numpy as np
import soundfile

from speech_ed_flax.cli import main
from speech_ed_flax.conversion.safetensors import read_safetensors
from speech_ed_flax.embedded import FOLDER

SAMPLE = FOLDER / "sample.flac"
SAID = (FOLDER / "sample.txt").read_text().strip()


def test_it_is_used_where_no_model_is_named_offline_and_says_so():
    command = [sys.executable, "-m", "speech_ed_flax", "transcribe", str(SAMPLE)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == SAID
    assert "letters" in ran.stderr.splitlines()[0]


def test_it_is_small_and_of_half_precision():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 10_000_000
    weights = read_safetensors(FOLDER / "model.safetensors").values()
    assert {tensor.dtype for tensor in weights} == {np.dtype(np.float16)}


def test_its_card_says_what_it_hears_how_often_it_errs_and_what_it_was_made_of():
    card = (FOLDER / "README.md").read_text()
    for word in ("letters", "digits", "WER", "AN4", "Whisper", "MIT", "configs/embedded.yaml"):
        assert word in card, word


def test_silence_has_no_text_in_it(tmp_path, capsys):
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000), 16_000)
    assert main(["transcribe", str(tmp_path / "silence.wav"), "-q"]) == 0
    assert capsys.readouterr().out.strip() == ""
