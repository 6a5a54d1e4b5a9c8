"""Dropout drops at its rate, on average changes nothing, and is off without a key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.layers.dropout import LEVELS, Dropout, draw_kept

KEY = jax.random.key(3)


def drop(x, rate, key=KEY):
    return Dropout(rate).apply({}, x, rngs={"dropout": key})


@pytest.mark.parametrize("rate", [0.1, 0.5])
@pytest.mark.parametrize("shape", [(3, 41, 500), (2, 3, 101, 101), (4, 1, 20_000)])
def test_entries_are_dropped_at_the_rate_and_the_others_scaled_up(shape, rate):
    found = np.asarray(drop(jnp.ones(shape), rate))
    kept = found != 0
    deviation = (rate * (1 - rate) / kept.size) ** 0.5
    assert abs(1 - kept.mean() - rate) < 5 * deviation
    np.testing.assert_allclose(found[kept], 1 / (1 - rate), rtol=2 / LEVELS)


def test_no_two_entries_are_dropped_together():
    kept = np.asarray(draw_kept(KEY, (64, 32, 64), LEVELS // 2)).reshape(64, -1)
    correlation = np.corrcoef(kept.T.astype(float))
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 7 / 64**0.5
    assert abs(correlation.mean()) < 0.01


def test_keys_and_layers_differ_and_one_key_repeats():
    x = jnp.ones((2, 20, 20))
    assert (drop(x, 0.3) == drop(x, 0.3)).all()
    assert (drop(x, 0.3) != drop(x, 0.3, jax.random.key(4))).any()


def test_gradients_pass_where_entries_do():
    x = jnp.ones((2, 20, 20))
    gradient = jax.grad(lambda x: drop(x, 0.3).sum())(x)
    np.testing.assert_array_equal(gradient, drop(x, 0.3))


def test_bfloat16_stays_bfloat16():
    assert drop(jnp.ones((2, 4, 4), jnp.bfloat16), 0.5).dtype == jnp.bfloat16


@pytest.mark.parametrize(("rate", "rngs"), [(0.0, {"dropout": KEY}), (0.5, {})])
def test_nothing_is_dropped_at_no_rate_or_without_a_key(rate, rngs):
    x = jnp.ones((2, 4, 4))
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, rngs=rngs), x)


def test_everything_is_dropped_at_a_rate_of_one():
    np.testing.assert_array_equal(drop(jnp.ones((2, 4, 4)), 1.0), 0)
