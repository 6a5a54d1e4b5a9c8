"""Every block of the README does what the page says, with local stand-ins for the Hub's models."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from transformers import BartConfig, SpeechEncoderDecoderConfig, Wav2Vec2Config

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.safetensors import read_safetensors

ROOT = Path(__file__).resolve().parents[2]
WHISPER = ROOT.parent / "shared" / "checkpoints" / "whisper-tiny.en"
EMBEDDED = "speech_ed_flax/embedded"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
PYTHON = [block for kind, block in BLOCKS if kind == "python"]
TEXT = "Author of the danger trail, Philip steals, etc."


def put_in_cache(hub: Path, name: str, files: Path) -> None:
    """Lays ``files`` out as a downloaded repository of the Hub."""
    repository = hub / f"models--{name.replace('/', '--')}"
    commit = "0" * 40
    shutil.copytree(files, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)


def halves(folder: Path) -> tuple[Path, Path]:
    """Writes a tiny wav2vec2 and a tiny BART in the layouts of their own checkpoints."""
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            conv_dim=(8,) * 7,
            num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2,
        ),
        BartConfig(
            vocab_size=50,
            d_model=16,
            decoder_layers=1,
            decoder_attention_heads=2,
            decoder_ffn_dim=16,
        ),
    )
    FlaxSpeechEncoderDecoderModel(config).save_pretrained(folder / "joint")
    state = read_safetensors(folder / "joint" / "model.safetensors")
    for part in ("encoder", "decoder"):
        half = folder / part
        half.mkdir()
        getattr(config, part).save_pretrained(half)
        tensors = {n.removeprefix(f"{part}."): t for n, t in state.items() if n.startswith(part)}
        save_file({n: np.array(t) for n, t in tensors.items()}, half / "model.safetensors")
    return folder / "encoder", folder / "decoder"


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """A folder as a reader has it: the repository's files, and models in the Hub's cache."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("tests/data", "benchmarks", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    (folder / EMBEDDED).mkdir(parents=True)
    shutil.copy(ROOT / EMBEDDED / "sample.flac", folder / EMBEDDED)
    encoder, decoder = halves(tmp_path_factory.mktemp("halves"))
    put_in_cache(folder / "hub", "facebook/wav2vec2-base", encoder)
    put_in_cache(folder / "hub", "facebook/bart-base", decoder)
    if WHISPER.exists():
        put_in_cache(folder / "hub", "openai/whisper-tiny.en", WHISPER)
    (folder / "clips.tsv").write_text(f"path\ttext\ntests/data/speech.flac\t{TEXT}\n")
    return folder


def run(desk: Path, command: list[str] | str) -> str:
    """Runs a command as a reader would; returns what it printed."""
    tools = str(Path(sys.executable).parent)
    environment = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"} | {
        "XDG_CACHE_HOME": str(desk / "cache"),
        "PATH": tools + os.pathsep + os.environ["PATH"],
        "HF_HUB_CACHE": str(desk / "hub"),
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
    }
    shell = isinstance(command, str)
    done = subprocess.run(
        command, shell=shell, cwd=desk, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def needs_whisper(block: str) -> None:
    if "whisper" in block and not WHISPER.exists():
        pytest.skip("the pretrained Whisper checkpoint is not on this machine")


def test_the_page_has_one_command_for_real_input_and_one_for_the_tests():
    first, second = (command for command in COMMANDS if command.startswith("pip install"))
    assert first.startswith("pip install . && speech-ed-flax transcribe")
    assert second.endswith("&& pytest -n 2 --dist loadscope")
    assert "grep -m 1 '^pip install .*pytest' README.md" in (ROOT / ".ci" / "run").read_text()


def test_the_commands_of_the_page_run_in_its_order(desk):
    commands = [c.removeprefix("pip install . && ") for c in COMMANDS if "pytest" not in c]
    assert len(commands) >= 8
    needs_whisper(" ".join(commands))
    printed = [run(desk, command) for command in commands]
    assert printed[0] == (ROOT / EMBEDDED / "sample.txt").read_text()
    assert "danger trail" in json.loads(printed[1])["text"]
    transcripts = sorted(path.name for path in (desk / "transcripts").iterdir())
    assert "speech.txt" in transcripts
    assert "speech.srt" in transcripts
    assert (desk / "runs" / "minute" / "best" / "model.safetensors").exists()
    assert (desk / "whisper-flax" / "flax_model.msgpack").exists()
    assert (desk / "whisper-pytorch" / "model.safetensors").exists()


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_the_python_of_the_page_runs(desk, block):
    needs_whisper(block)
    run(desk, [sys.executable, "-c", block])
