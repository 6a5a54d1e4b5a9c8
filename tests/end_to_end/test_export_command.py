"""The command ``export``: a folder that runs where JAX is, and nothing of this package."""

import json
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from contracts.models import make_model
from families import DECODERS, SHALLOW

from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.cli import main
from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.embedded import FOLDER

ROOT = Path(__file__).resolve().parents[2]
JAX = ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers")
"""JAX, what it needs itself, and what it reads exported programs with."""
ALONE = """
import runpy, sys
sys.path.append(sys.argv.pop(1))
sys.argv.pop(0)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """A folder of installed packages that has JAX and nothing else."""
    folder = tmp_path_factory.mktemp("packages")
    for name in JAX:
        installed = Path(find_spec(name).origin).parent
        for path in installed.parent.glob(f"{name}*"):
            if path.name.partition("-")[0].partition(".")[0] == name:
                (folder / path.name).symlink_to(path)
    return folder


def run(packages, folder, *arguments) -> str:
    """Runs the example of a folder where there are no other packages."""
    command = [sys.executable, "-I", "-S", "-c", ALONE, packages, folder / "run.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny model that hears waveforms and has no tokenizer, and the same in memory."""
    model = make_model(SHALLOW, DECODERS["bart"])
    model.processor = Processor(WaveformFeatures())
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    return path, model


def test_the_example_writes_the_text_of_the_sample_with_jax_alone(packages, tmp_path, capsys):
    out = tmp_path / "exported"
    assert main(["export", str(out), "--format", "stablehlo"]) == 0
    assert "cpu, cuda, tpu; features [batch, 80, 700]" in capsys.readouterr().out
    assert run(packages, out) == (FOLDER / "sample.txt").read_text()
    assert f"```py\n{(out / 'run.py').read_text()}```" in (ROOT / "README.md").read_text()
    about = json.loads((out / "manifest.json").read_text())
    assert about["inputs"]["mask"] == {"shape": ["batch", 700], "dtype": "bool"}
    assert about["sampling_rate"] == 16_000
    assert (out / "tokenizer.json").exists()
    assert (out / "preprocessor_config.json").exists()


def test_the_example_hears_waveforms(packages, folder, tmp_path):
    path, model = folder
    assert main(["export", str(tmp_path), "-m", str(path), "--max-new-tokens", "6"]) == 0
    sound = (8_000 * np.random.default_rng(0).standard_normal(1_234)).astype("<i2")
    with wave.open(str(tmp_path / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(sound.tobytes())
    speech = model.processor.features.features([sound / np.float32(32_768)])
    found = model.with_padding("invariant").generate(*speech, max_new_tokens=6)
    tokens = run(packages, tmp_path, tmp_path / "sound.wav").split()
    assert tokens == [str(token) for token in found.sequences[0]]


def test_shapes_and_precision_are_as_asked(folder, tmp_path):
    path, _ = folder
    options = ["--batch-size", "2", "--seconds", "0.5", "--dtype", "bfloat16"]
    given = ["export", str(tmp_path), "-m", str(path), "--platforms", "tpu", *options]
    assert main([*given, "--beam-size", "2"]) == 0
    about = json.loads((tmp_path / "manifest.json").read_text())
    assert about["inputs"]["features"] == {"shape": [2, 8_000], "dtype": "float32"}
    assert about["outputs"]["scores"] == {"shape": [2], "dtype": "float32"}
    assert (about["platforms"], about["dtype"]) == (["tpu"], "bfloat16")
    assert np.load(tmp_path / "sample.npz")["mask"].shape == (2, 8_000)
    weights = np.load(tmp_path / "weights.npz")
    assert weights["encoder/feature_norm/scale"].view("bfloat16").mean() > 0


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--platforms", "cpu,gpu"], 2, "--platforms 'gpu' is not known: use cpu,cuda,tpu."),
        (["--seconds", "2"], 4, "this encoder always hears 7 s: leave --seconds out."),
        (["--task", "translate"], 4, "language and task are for Whisper"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(options, code, reason, tmp_path, capsys):
    assert main(["export", str(tmp_path / "out"), *options]) == code
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_overwritten_by_its_program(folder, capsys):
    path, _ = folder
    assert main(["export", str(path), "-m", str(path), "--force"]) == 2
    assert "it is the model too" in capsys.readouterr().err
    assert (path / "model.safetensors").exists()


def test_without_flatbuffers_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    assert main(["export", str(tmp_path / "out")]) == 4
    assert "pip install 'speech_ed_flax[export]'" in capsys.readouterr().err
