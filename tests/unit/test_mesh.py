"""Meshes, where parameters lie on them, and which rows a process loads."""

import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import optax
import pytest
from contracts.models import DECODERS, ENCODERS, every_family_once
from families import joint
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.mesh import AXES, PRESETS, MeshSettings, axis_sizes, make_mesh
from speech_ed_flax.model import abstract_params, build
from speech_ed_flax.partition import place_of
from speech_ed_flax.settings import make_settings
from speech_ed_flax.training import distributed
from speech_ed_flax.training.config import TrainConfig
from speech_ed_flax.training.distributed import initialise_distributed
from speech_ed_flax.training.settings import OptimizerSettings, StepSettings
from speech_ed_flax.training.sharding import (
    abstract_state,
    check_rows,
    local_rows,
    place_batch,
    state_sharding,
)


def abstract_mesh(*sizes: int) -> Any:
    return AbstractMesh(sizes, AXES)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (PRESETS["single"], (1, 1, 1)),
        (PRESETS["data"], (16, 1, 1)),
        (PRESETS["host"], (1, 16, 1)),
        (PRESETS["pod"], (4, 4, 1)),
        (MeshSettings(data=2, fsdp=-1, tensor=4), (2, 2, 4)),
    ],
)
def test_an_axis_of_minus_one_takes_the_devices_that_are_left(settings, expected):
    assert tuple(axis_sizes(settings, 16).values()) == expected


@pytest.mark.parametrize(
    ("sizes", "match"),
    [
        ((0, 1, 1), "data=0 counts no devices"),
        ((1, -2, 1), "fsdp=-2 counts no devices"),
        ((-1, -1, 1), "only one axis can be -1"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes, match):
    with pytest.raises(ConfigError, match=match):
        MeshSettings(*sizes)


def test_devices_that_do_not_divide_or_suffice_are_refused_by_number():
    with pytest.raises(ConfigError, match=r"fsdp=3.*16 devices do not divide into groups of 3"):
        axis_sizes(MeshSettings(fsdp=3), 16)
    with pytest.raises(ConfigError, match=r"data=2, fsdp=1, tensor=1 is .* of 2 devices.*have 1"):
        make_mesh(MeshSettings(data=2), jax.devices()[:1])


def test_a_mesh_always_has_three_axes():
    assert dict(make_mesh(PRESETS["single"]).shape) == {"data": 1, "fsdp": 1, "tensor": 1}


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("decoder/transformer/layers_0/feed_forward/up/weight", (32, 24), ("tensor", "fsdp")),
        ("decoder/transformer/layers_0/feed_forward/up/bias", (32,), ("tensor",)),
        ("decoder/transformer/layers_0/feed_forward/down/weight", (24, 32), ("fsdp", "tensor")),
        ("encoder/transformer/layers_0/self_attention/key/weight", (24, 24), ("tensor", "fsdp")),
        ("decoder/tokens/embedding", (48, 24), (("tensor", "fsdp"), None)),
        ("decoder/tokens/embedding", (50, 24), ("tensor", "fsdp")),
        ("decoder/tokens/embedding", (49, 24), (None, "fsdp")),
        ("decoder/tokens/embedding", (49, 23), (None, None)),
        ("projection/weight", (32, 24), ("fsdp", None)),
        ("encoder/adapter/layers_0/kernel", (3, 20, 40), (None, None, "fsdp")),
        ("encoder/positions/direction", (8, 12, 24), ("fsdp", None, None)),
        ("encoder/feature_encoder/layers_1/kernel", (3, 8, 8), (None, None, None)),
        ("encoder/transformer/norm/scale", (24,), (None,)),
    ],
)
def test_the_first_rule_splits_the_dimensions_that_divide(path, shape, expected):
    spec = place_of(abstract_mesh(2, 4, 2), path, shape).spec
    assert tuple(spec) + (None,) * (len(shape) - len(spec)) == expected


def test_every_matrix_of_every_family_is_split_but_for_the_small_ones():
    """The rules know all names: what is whole is a vector, or one of these."""
    small = re.compile(
        r"encoder/feature_encoder/|_bias$|gate_scale$|(_types|relative|relative_positions)/embedding$"
    )
    for encoder, decoder in every_family_once():
        module = build(joint(ENCODERS[encoder], DECODERS[decoder]))
        for path, leaf in abstract_params(module).items():
            spec = place_of(abstract_mesh(1, 2, 1), path, leaf.shape).spec
            if len(leaf.shape) > 1 and not small.search(path):
                assert "fsdp" in spec, path


def leaves_of(tree: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
def test_moments_and_averages_lie_where_their_parameters_do(name):
    module = build(joint(ENCODERS["wav2vec2"], DECODERS["bart"]))
    optimizer = OptimizerSettings(name=name, encoder_frozen_steps=3)
    settings = StepSettings(1, 0, optimizer=optimizer, average=0.9)
    state = abstract_state(module, settings)
    placed = dict(leaves_of(state_sharding(abstract_mesh(1, 2, 2), state)))
    shapes = {path: leaf.shape for path, leaf in leaves_of(state)}
    assert placed.keys() == shapes.keys()
    path = "decoder/transformer/layers_0/feed_forward/up/weight"
    assert placed[f"params/{path}"].spec == PartitionSpec("tensor", "fsdp")
    following = [p for p in placed if p.endswith(path) and shapes[p] == shapes[f"params/{path}"]]
    assert len(following) == {"adamw": 4, "adafactor": 3}[name]
    assert {placed[p].spec for p in following} == {placed[f"params/{path}"].spec}
    for scalar in ("step", "skipped", "key"):
        assert placed[scalar].spec == PartitionSpec()


def test_factored_moments_are_whole():
    state: Any = abstract_state_of_wide_adafactor()
    placed = dict(leaves_of(state_sharding(abstract_mesh(1, 2, 2), state)))
    rows = [path for path in placed if "v_row" in path or "v_col" in path]
    assert rows
    assert {placed[path].spec for path in rows} == {PartitionSpec()}


def abstract_state_of_wide_adafactor() -> Any:
    from speech_ed_flax.training.state import TrainState

    params = {"up": {"weight": jax.ShapeDtypeStruct((256, 128), np.float32)}}
    moments = jax.eval_shape(optax.scale_by_factored_rms().init, params)
    count = jax.ShapeDtypeStruct((), np.int32)
    return TrainState(count, count, count, params, moments)


def test_rows_that_do_not_divide_are_refused_by_number():
    mesh = abstract_mesh(2, 2, 1)
    check_rows(mesh, 8, accumulate=2)
    with pytest.raises(ConfigError, match=r"batch of 12.*4 devices.*accumulate=2.*multiple of 8"):
        check_rows(mesh, 12, accumulate=2)


def test_a_process_with_all_devices_loads_all_rows_and_no_others():
    mesh = make_mesh(PRESETS["single"], jax.devices()[:1])
    assert isinstance(mesh, Mesh)
    assert local_rows(mesh, 6) == slice(0, 6)
    rows = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(place_batch(mesh, {"rows": rows}, 6)["rows"], rows)
    with pytest.raises(ConfigError, match=r"given 5 rows.*needs rows 0 to 6 of 6"):
        place_batch(mesh, {"rows": rows[:5]}, 6)


@pytest.fixture
def alone(monkeypatch):
    """No launcher, and nobody to join: joining is a failure."""
    for name in (*distributed.VARIABLES, *distributed.LAUNCHERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: pytest.fail("joined"))
    return monkeypatch


def test_one_process_joins_nobody(alone):
    initialise_distributed()
    initialise_distributed("127.0.0.1:1", 1, 0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("10.0.0.1:1", None, 0), "processes not known"),
        (("10.0.0.1", 2, 0), "has no port"),
        (("10.0.0.1:1", 2, 2), "process=2 is not one of processes=2"),
    ],
)
def test_processes_that_make_no_sense_are_refused(alone, arguments, match):
    with pytest.raises(ConfigError, match=match):
        initialise_distributed(*arguments)


def test_the_environment_says_who_takes_part(alone):
    joined = []
    alone.setattr(jax.distributed, "initialize", lambda *given, **_: joined.append(given))
    for name, value in zip(distributed.VARIABLES, ("10.0.0.1:1", "4", "3"), strict=True):
        alone.setenv(name, value)
    initialise_distributed()
    assert joined == [("10.0.0.1:1", 4, 3)]


def test_a_launcher_that_jax_knows_is_left_to_it(alone):
    joined = []
    alone.setattr(jax.distributed, "initialize", lambda *given, **_: joined.append(given))
    alone.setenv("OMPI_COMM_WORLD_SIZE", "2")
    initialise_distributed()
    assert joined == [()]


def test_a_training_names_a_preset_or_the_sizes_of_its_axes():
    model = {"checkpoint": "somewhere"}
    values = {"model": model, "train": ["clips.tsv"], "optimizer": {"steps": 1}}
    named = make_settings(TrainConfig, values | {"mesh": "pod"}, "a.yaml")
    assert named.layout == PRESETS["pod"]
    sized = make_settings(TrainConfig, values | {"mesh": {"fsdp": 2}}, "a.yaml")
    assert sized.layout == MeshSettings(fsdp=2)
    assert make_settings(TrainConfig, values, "a.yaml").layout == MeshSettings()
    with pytest.raises(ConfigError, match=r"a\.yaml: mesh"):
        make_settings(TrainConfig, values | {"mesh": "mesh"}, "a.yaml")
