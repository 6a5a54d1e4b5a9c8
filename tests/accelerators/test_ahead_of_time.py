"""Whole models compile for hardware that is not there, and their decoding loops move little.

The compilers of TPU and GPU are an extra (``pip install 'speech_ed_flax[aot]'``), and cuDNN another
wheel; what needs them is skipped where they are missing. A sharded CPU needs nothing.
"""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from accelerators.targets import DEVICES, TARGETS

CASES = [
    ("cpu", "wav2vec2-bart", "xla", "float32"),
    ("cpu", "wav2vec2-bart", "xla", "bfloat16"),
    ("v5e", "wav2vec2-bart", "xla", "float32"),
    ("v5e", "wav2vec2-bart", "xla", "bfloat16"),
    ("v5e", "wav2vec2-bart", "splash", "bfloat16"),
    ("v5e", "whisper", "xla", "bfloat16"),
    ("v5e", "whisper", "splash", "float32"),
    ("a100", "wav2vec2-bart", "xla", "float32"),
    ("a100", "wav2vec2-bart", "xla", "bfloat16"),
    ("a100", "whisper", "cudnn", "bfloat16"),
    ("h100", "whisper", "xla", "bfloat16"),
    ("h100", "wav2vec2-bart", "cudnn", "bfloat16"),
]
"""Target, model, attention, dtype of the parameters."""

ENCODER_LAYERS = 2


@functools.cache
def compiled(target: str, *case: str) -> dict:
    """Compiles encoder and searches in a process of its own; what it found, by program."""
    devices = f"--xla_force_host_platform_device_count={DEVICES}" if target == "cpu" else ""
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": devices,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
        # A TPU's compiler asks nobody where it runs, writes no log, and may be loaded twice.
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_LOG_DIR": "disabled",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    command = [sys.executable, "-m", "accelerators.compilation", target, *case]
    result = subprocess.run(
        [*command, "encode", "greedy", "beam"],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.fixture(params=CASES, ids="-".join)
def case(request) -> tuple[str, ...]:
    target, _, attention, _ = request.param
    if missing := TARGETS[target].missing(attention):
        pytest.skip(missing)
    return request.param


def test_encoder_and_searches_compile_with_the_kernel_that_was_asked_for(case):
    kernels = 0 if case[2] == "xla" else ENCODER_LAYERS
    found = compiled(*case)
    assert {name: of["kernels"] for name, of in found.items()} == dict.fromkeys(
        ("encode", "greedy", "beam"), kernels
    )
    assert all(of["peak_bytes"] > 0 for of in found.values())


@pytest.mark.parametrize("search", ["greedy", "beam"])
def test_a_step_of_decoding_copies_no_cache_converts_no_weight_and_gathers_nothing(case, search):
    found = compiled(*case)[search]
    assert found["cache_writes"], "the loop was not found"
    for fault in ("cache_copies", "weight_converts", "exchanges"):
        assert found[fault] == [], fault
