"""Dense layers: the same product in whatever formulation the number of rows calls for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.layers.linear import Dense, Head, project

NUMBERS = np.random.default_rng(0)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33])
@pytest.mark.parametrize("compiled", [False, True])
def test_every_number_of_rows_gives_the_product(rows, compiled):
    x = NUMBERS.standard_normal((rows, 12)).astype(np.float32)
    weight = NUMBERS.standard_normal((7, 12)).astype(np.float32)
    found = (jax.jit(project) if compiled else project)(jnp.asarray(x), jnp.asarray(weight))
    assert found.shape == (rows, 7)
    np.testing.assert_allclose(found, x @ weight.T, atol=1e-5)


@pytest.mark.parametrize("shape", [(12,), (1, 12), (2, 3, 12), (5, 1, 12), (1, 40, 12)])
def test_leading_axes_stay(shape):
    x = NUMBERS.standard_normal(shape).astype(np.float32)
    weight = NUMBERS.standard_normal((7, 12)).astype(np.float32)
    found = project(jnp.asarray(x), jnp.asarray(weight))
    np.testing.assert_allclose(found, x @ weight.T, atol=1e-5)


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_gradients_are_those_of_the_product(rows):
    x, weight = jnp.ones((rows, 4)), jnp.asarray(NUMBERS.standard_normal((3, 4)), jnp.float32)
    into_x, into_weight = jax.grad(lambda *a: project(*a).sum(), argnums=(0, 1))(x, weight)
    np.testing.assert_allclose(into_x, np.broadcast_to(weight.sum(0), x.shape), rtol=1e-5)
    np.testing.assert_allclose(into_weight, np.full(weight.shape, rows), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_layer_keeps_the_precision_and_scores_are_float32(dtype):
    x, weight = jnp.ones((2, 4), dtype), jnp.ones((3, 4), dtype)
    layer = {"params": {"weight": weight, "bias": jnp.ones(3, dtype)}}
    assert Dense(3).apply(layer, x).dtype == dtype
    assert Head(3, tied=True).apply({}, x[None], weight).dtype == jnp.float32
    np.testing.assert_array_equal(Dense(3).apply(layer, x).astype(np.float32), np.full((2, 3), 5))
