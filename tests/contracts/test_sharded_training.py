"""A training is the same one on one device, on eight, and in two processes."""

import functools
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

PRESETS = ["data", "host", "pod"]
OTHERS = ["tensor", "tensor-still"]
"""A mesh that uses every axis, with and without chance."""


def start(devices: int, *arguments: str) -> subprocess.Popen[str]:
    """Starts a process that has so many devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    return subprocess.Popen(
        [sys.executable, "-m", "contracts.sharded", *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate()
    assert process.returncode == 0, errors[-4000:]
    return json.loads(output.splitlines()[-1])


@functools.cache
def found() -> list[dict[str, Any]]:
    """Returns what four processes found that train at the same time.

    Two know eight devices each and train on one of them and on all; the others are one training,
    on two devices each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(8, "single", *PRESETS), start(8, "single-still", *OTHERS)]
    processes += [start(2, f"127.0.0.1:{port},2,{number}", "processes") for number in range(2)]
    return [result(process) for process in processes]


def trained() -> dict[str, Any]:
    return found()[0] | found()[1]


def trained_together() -> list[dict[str, Any]]:
    return [one["processes"] for one in found()[2:]]


@pytest.mark.parametrize("mesh", PRESETS + OTHERS)
def test_losses_on_eight_devices_are_those_on_one(mesh):
    alone = trained()["single-still" if mesh.endswith("-still") else "single"]["losses"]
    assert alone[-1] < alone[0]
    np.testing.assert_allclose(trained()[mesh]["losses"], alone, rtol=1e-5)


def test_chance_changes_the_losses():
    assert trained()["single"]["losses"] != trained()["single-still"]["losses"]


def test_two_processes_train_as_one_device_does_and_each_loads_its_own_rows():
    together = trained_together()
    assert together[0]["losses"] == together[1]["losses"]
    np.testing.assert_allclose(together[0]["losses"], trained()["single"]["losses"], rtol=1e-5)
    assert [one["rows"] for one in together] == [[0, 8], [8, 16]]


@pytest.mark.parametrize(("mesh", "parts"), [("host", 1), ("pod", 1), ("tensor", 2)])
def test_gathered_parameters_are_whole_but_for_what_tensor_splits(mesh, parts):
    assert trained()[mesh]["gathered"] == parts
    assert [one["gathered"] for one in trained_together()] == [2, 2]


@pytest.mark.parametrize(("mesh", "parts"), [("data", 1), ("host", 8), ("pod", 4), ("tensor", 4)])
def test_weights_and_moments_are_split_over_the_devices(mesh, parts):
    there = trained()[mesh]
    assert there["parts"] == parts
    assert there["share"] == 1 / parts
    if parts > 1:
        # Biases, norms and the feature encoder are whole everywhere.
        assert there["bytes"] < trained()["single"]["bytes"] * (1 / parts + 0.15)


def test_devices_that_hold_everything_exchange_nothing_but_sums():
    assert set(trained()["data"]["exchanges"]) == {"all-reduce"}


def test_one_device_exchanges_nothing():
    assert trained()["single"]["exchanges"] == {}


@pytest.mark.parametrize("mesh", ["host", "pod"])
def test_devices_that_split_weights_move_no_activations(mesh):
    """They gather weights and add up gradients; the embeddings of tokens alone may move."""
    exchanges = trained()[mesh]["exchanges"]
    assert exchanges["all-gather"] > 0
    assert exchanges.get("all-to-all", 0) <= 4
