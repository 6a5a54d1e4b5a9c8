"""How many devices hold the weights, and what memory there is."""

import pytest
from jax import ShapeDtypeStruct
from jax.sharding import AbstractMesh

from speech_ed_flax.devices import fewest_holders, held_bytes, share_devices
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.memory import host_memory
from speech_ed_flax.mesh import AXES

PARAMS = {
    "up": {"weight": ShapeDtypeStruct((8, 4), "float32")},
    "norm": {"scale": ShapeDtypeStruct((4,), "float32")},
}
"""128 bytes that can be split, and 16 that cannot."""


def mesh(data: int, tensor: int) -> AbstractMesh:
    return AbstractMesh((data, 1, tensor), AXES)


def test_devices_that_share_weights_hold_a_part_of_those_that_can_be_split():
    assert [held_bytes(mesh(1, count), PARAMS) for count in (1, 2, 4)] == [144, 80, 48]


@pytest.mark.parametrize(("room", "count"), [(float("inf"), 1), (300, 1), (150, 2), (90, 4)])
def test_as_few_devices_as_can_hold_the_weights(room, count):
    assert fewest_holders(PARAMS, 4, room) == count


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"on each of 4 devices.* use dtype bfloat16"):
        fewest_holders(PARAMS, 4, 70)


def test_devices_that_do_not_divide_are_refused():
    with pytest.raises(ConfigError, match="do not divide into groups of 3"):
        share_devices(PARAMS, tensor=3)


def test_the_memory_of_a_container_counts(tmp_path):
    meminfo = tmp_path / "meminfo"
    assert host_memory(meminfo, tmp_path) is None
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:  8 kB\n")
    assert host_memory(meminfo, tmp_path) == 8 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert host_memory(meminfo, tmp_path) == 8 * 1024
    (tmp_path / "memory.max").write_text("5000\n")
    assert host_memory(meminfo, tmp_path) == 4000
