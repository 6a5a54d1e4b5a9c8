"""Optimizers, schedules, and what path rules leave alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.training.optimizer import optimizer, stop_frozen
from speech_ed_flax.training.schedule import schedule
from speech_ed_flax.training.settings import OPTIMIZERS, OptimizerSettings

PARAMS = {
    "encoder": {
        "feature_encoder": {"kernel": jnp.full((2, 2), 3.0)},
        "positions": {"norm": {"mean": jnp.full(2, 3.0), "scale": jnp.full(2, 3.0)}},
        "transformer": {"weight": jnp.full((2, 3), 3.0)},
    },
    "decoder": {
        "head": {"weight": jnp.full((4, 2), 3.0), "bias": jnp.full(4, 3.0)},
        "positions": {"sinusoids": jnp.full((4, 2), 3.0)},
    },
}
ENCODER_WEIGHT = "encoder/transformer/weight"
DECODER_WEIGHT = "decoder/head/weight"
PLAIN = OptimizerSettings(schedule="constant", learning_rate=0.1, weight_decay=0.0, clip=None)


def paths(tree) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(p, simple=True, separator="/"): np.asarray(leaf) for p, leaf in leaves
    }


def train(settings: OptimizerSettings, steps: int = 1):
    """Returns the changes of parameters over some updates with gradients of 1, and the state."""
    transform = optimizer(settings)
    params, state = PARAMS, transform.init(PARAMS)
    for step in range(steps):
        gradients = jax.grad(
            lambda p, step=step: sum(
                leaf.sum() for leaf in jax.tree.leaves(stop_frozen(p, settings, jnp.asarray(step)))
            )
        )(params)
        known = {"count": 1, "norm": optax.tree.norm(gradients)}
        updates, state = transform.update(gradients, state, params, **known)
        params = optax.apply_updates(params, updates)
    return paths(jax.tree.map(jnp.subtract, params, PARAMS)), state


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_down_the_gradient(name):
    for path, change in train(replace(PLAIN, name=name), steps=2)[0].items():
        assert (change < 0).all() or path.endswith("/mean"), path


@pytest.mark.parametrize("name", ["adamw", "lion", "sgd"])
def test_the_first_moment_is_kept_in_bfloat16_where_it_is_asked_for(name):
    kinds = {}
    for dtype in ("float32", "bfloat16"):
        _, state = train(replace(PLAIN, name=name, state_dtype=dtype))
        kinds[dtype] = [leaf.dtype for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert set(kinds["float32"]) == {jnp.dtype("float32")}
    assert jnp.dtype("bfloat16") in kinds["bfloat16"]
    assert (jnp.dtype("float32") in kinds["bfloat16"]) == (name == "adamw")


def test_statistics_of_batch_norm_and_sinusoids_are_never_trained_nor_decayed():
    everything = replace(PLAIN, weight_decay=0.5, weight_decays=())
    changes, _ = train(everything, steps=3)
    for path in ("encoder/positions/norm/mean", "decoder/positions/sinusoids"):
        assert (changes[path] == 0).all()
    assert (changes["encoder/positions/norm/scale"] != 0).all()


def test_frozen_parameters_stay_and_have_no_state():
    settings = replace(PLAIN, frozen=(r"^encoder/feature_encoder/",), weight_decay=0.5)
    changes, state = train(settings, steps=2)
    assert (changes["encoder/feature_encoder/kernel"] == 0).all()
    assert (changes[ENCODER_WEIGHT] != 0).all()
    assert not [path for path in paths(state) if "feature_encoder" in path]


def test_a_frozen_parameter_takes_no_part_in_the_norm_that_clips():
    settings = replace(PLAIN, name="sgd", beta1=0.0, clip=1.0, frozen=(r"^encoder/", r"/bias$"))
    changes, _ = train(settings)
    np.testing.assert_allclose(changes[DECODER_WEIGHT], -0.1 / np.sqrt(8), rtol=1e-6)


def test_the_encoder_waits_and_then_starts_as_a_fresh_parameter():
    settings = replace(PLAIN, encoder_frozen_steps=2, weight_decay=0.5)
    changes, _ = train(settings, steps=2)
    assert (changes[ENCODER_WEIGHT] == 0).all()
    assert (changes[DECODER_WEIGHT] != 0).all()
    late, _ = train(settings, steps=3)
    first, _ = train(replace(PLAIN, weight_decay=0.5), steps=1)
    np.testing.assert_allclose(late[ENCODER_WEIGHT], first[ENCODER_WEIGHT], rtol=1e-6)


def test_factors_of_the_learning_rate_follow_paths():
    rules = ((r"^encoder/.*/weight$", 0.25), (r"^encoder/", 0.5))
    changes, _ = train(replace(PLAIN, learning_rates=rules))
    np.testing.assert_allclose(changes[ENCODER_WEIGHT], -0.025, rtol=1e-5)
    np.testing.assert_allclose(changes["encoder/feature_encoder/kernel"], -0.05, rtol=1e-5)
    np.testing.assert_allclose(changes[DECODER_WEIGHT], -0.1, rtol=1e-5)


def test_weight_decay_follows_paths_and_spares_biases_and_norms():
    settings = replace(PLAIN, weight_decay=0.5)
    changes, _ = train(settings)
    np.testing.assert_allclose(changes[DECODER_WEIGHT], -0.1 - 0.1 * 0.5 * 3, rtol=1e-5)
    for path in ("decoder/head/bias", "encoder/positions/norm/scale"):
        np.testing.assert_allclose(changes[path], -0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "make", "arguments"),
    [
        ("constant", "get_constant_schedule_with_warmup", (5,)),
        ("linear", "get_linear_schedule_with_warmup", (5, 30)),
        ("cosine", "get_cosine_schedule_with_warmup", (5, 30)),
        ("inverse-sqrt", "get_inverse_sqrt_schedule", (5,)),
    ],
)
def test_schedules_are_those_of_transformers(name, make, arguments):
    torch = pytest.importorskip("torch")
    import transformers

    theirs = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = getattr(transformers, make)(theirs, *arguments)
    ours = schedule(replace(PLAIN, learning_rate=0.3, schedule=name, warmup_steps=5, steps=30))
    for step in range(31):
        expected = scheduler.get_last_lr()[0]
        np.testing.assert_allclose(ours(step), expected, rtol=1e-5, atol=1e-8, err_msg=str(step))
        theirs.step()
        scheduler.step()


def test_a_tri_stage_schedule_rises_holds_and_falls_to_its_share():
    stages = {"warmup_steps": 4, "hold_steps": 6, "steps": 20, "final": 0.05}
    rate = schedule(replace(PLAIN, schedule="tri-stage", **stages))
    rates = np.array([rate(step) for step in range(25)])
    np.testing.assert_allclose(rates[:5], 0.1 * np.arange(5) / 4, rtol=1e-6)
    np.testing.assert_allclose(rates[4:11], 0.1, rtol=1e-6)
    np.testing.assert_allclose(rates[10:21], 0.1 * 0.05 ** (np.arange(11) / 10), rtol=1e-5)
    np.testing.assert_allclose(rates[20:], 0.005, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"name": "adam"}, "optimizer name='adam'"),
        ({"schedule": "step"}, "schedule='step'"),
        ({"schedule": "linear"}, "steps=None"),
        ({"schedule": "cosine", "warmup_steps": 10, "steps": 10}, "steps=10"),
        ({"schedule": "tri-stage", "steps": 10}, "final=0"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"beta2": 1.2}, "beta2=1.2"),
        ({"learning_rate": -1.0}, "learning_rate=-1.0"),
        ({"name": "adafactor", "state_dtype": "bfloat16"}, "no first moment"),
        ({"frozen": ("encoder/(",)}, r"encoder/\("),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(fields, named):
    with pytest.raises(ConfigError, match=named):
        replace(PLAIN, **fields)
