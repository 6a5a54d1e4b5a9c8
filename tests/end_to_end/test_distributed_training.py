"""The command ``train`` in two processes of two devices each, and in one that goes on alone."""

import json
import os
import socket
import subprocess
import sys

import pytest
import yaml
from tones import training, write_tones


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    written = training(write_tones(folder, 20), write_tones(folder, 6, seed=1))
    written["data"]["row_multiple"] = 4
    written["optimizer"]["steps"] = 4
    written["evaluation"]["every"] = 4
    path = folder / "tones.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def start(config, folder, *changes, devices=1, **environment):
    """Starts the command with so many devices in a process of its own."""
    flags = os.environ.get("XLA_FLAGS", "")
    environment = os.environ | environment
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder.parent / "programs")
    environment["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    command = [
        sys.executable,
        "-m",
        "speech_ed_flax",
        "train",
        "-c",
        str(config),
        "-o",
        str(folder),
    ]
    return subprocess.Popen(
        [*command, *changes],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*processes):
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs


def reports(folder):
    written = (folder / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line for line in map(json.loads, written) if "dev/loss" in line}


def test_two_processes_train_as_one_does_and_one_goes_on_where_they_stopped(config, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    finish(start(config, alone, "--optimizer.steps=6"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = [
        start(
            config,
            shared,
            "--mesh.fsdp=2",
            devices=2,
            JAX_COORDINATOR_ADDRESS=address,
            JAX_NUM_PROCESSES="2",
            JAX_PROCESS_ID=str(number),
        )
        for number in range(2)
    ]
    finish(*together)
    finish(start(config, shared, "--optimizer.steps=6"))
    one, other = reports(alone), reports(shared)
    assert one.keys() == other.keys() == {4, 6}
    for step, judged in one.items():
        assert judged["dev/loss"] == pytest.approx(other[step]["dev/loss"], rel=1e-5)
        assert judged["dev/wer"] == other[step]["dev/wer"]
    assert (shared / "best" / "model.safetensors").stat().st_size > 10_000
