"""Attention: what is seen, what is not, and where the cache is written."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.layers import attend as attend_module
from speech_ed_flax.layers.attention import Attention, KeyValue
from speech_ed_flax.layers.cache import visible

WIDTH, HEADS, HEAD_DIM = 8, 2, 4


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def variables():
    names = ("query", "key", "value", "out")
    layers = {
        name: {"weight": draw(WIDTH, WIDTH, seed=i), "bias": draw(WIDTH, seed=10 + i)}
        for i, name in enumerate(names)
    }
    return {"params": layers}


def attend(variables, x, source, mask=None, bias=None, **options):
    module = Attention(WIDTH, HEADS, **options)
    key_value = module.apply(variables, source, method="project")
    return np.asarray(module.apply(variables, x, key_value, mask, bias))


def by_hand(variables, x, source, mask=None, scale=HEAD_DIM**-0.5):
    """Computes attention one head and one query at a time, in numpy."""
    layers = {
        name: (np.asarray(layer["weight"].T), np.asarray(layer["bias"]))
        for name, layer in variables["params"].items()
    }
    query, key, value = (
        np.asarray(given) @ layers[name][0] + layers[name][1]
        for name, given in (("query", x), ("key", source), ("value", source))
    )
    mixed = np.zeros_like(query)
    for row in range(x.shape[0]):
        for head in range(HEADS):
            part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
            for at in range(x.shape[1]):
                scores = key[row, :, part] @ query[row, at, part] * scale
                seen = np.ones(len(scores), bool) if mask is None else np.asarray(mask)[row, 0, at]
                if seen.any():
                    weights = np.exp(scores[seen] - scores[seen].max())
                    mixed[row, at, part] = weights / weights.sum() @ value[row, seen, part]
    return mixed @ layers["out"][0] + layers["out"][1]


def test_attention_is_the_softmax_mixture_of_the_values_it_sees(variables):
    x, source = draw(2, 3, WIDTH, seed=20), draw(2, 5, WIDTH, seed=21)
    mask = jnp.asarray(np.random.default_rng(3).random((2, 1, 3, 5)) < 0.6)
    for seen in (None, mask):
        expected = by_hand(variables, x, source, seen)
        np.testing.assert_allclose(attend(variables, x, source, seen), expected, atol=1e-5)


def test_scale_replaces_the_root_of_the_head_width(variables):
    x = draw(1, 3, WIDTH, seed=20)
    found = attend(variables, x, x, scale=0.3)
    np.testing.assert_allclose(found, by_hand(variables, x, x, scale=0.3), atol=1e-5)


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_heads_that_share_keys_read_what_they_would_of_copies(kv_heads):
    """Masks and biases by query, by head and by key alone; weights too, for who captures them."""
    heads, shape = 4, (2, 4, 3, 5)
    copied, shared = Attention(WIDTH, heads), Attention(WIDTH, heads, kv_heads=kv_heads)
    x, source = draw(2, 3, WIDTH, seed=20), draw(2, 5, WIDTH, seed=21)
    key, value = (draw(2, kv_heads, 5, WIDTH // heads, seed=seed) for seed in range(2))
    copies = (jnp.repeat(part, heads // kv_heads, axis=1) for part in (key, value))
    copies, few = KeyValue(*copies), KeyValue(key, value)
    variables = copied.init(jax.random.key(0), x, copies)
    projected, _ = shared.init_with_output(jax.random.key(0), source, method="project")
    assert projected.key.shape == projected.value.shape == key.shape
    random = np.random.default_rng(3).random(shape) < 0.6
    for mask, bias in [(random, None), (random[:, :1, :1], draw(*shape)), (random[:, :1], None)]:
        given = (jnp.asarray(mask), bias)
        for options in ({}, {"mutable": ["intermediates"]}):
            expected = copied.apply(variables, x, copies, *given, **options)
            found = shared.apply(variables, x, few, *given, **options)
            jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), found, expected)


def test_a_query_that_sees_nothing_reads_zero(variables):
    x = draw(2, 3, WIDTH, seed=20)
    mask = jnp.asarray([True, False])[:, None, None, None] & jnp.ones((2, 1, 3, 3), bool)
    found = attend(variables, x, x, mask)
    expected = np.broadcast_to(variables["params"]["out"]["bias"], (3, WIDTH))
    np.testing.assert_allclose(found[1], expected, atol=1e-6)
    np.testing.assert_allclose(found[:1], attend(variables, x[:1], x[:1]), atol=1e-6)


def test_hidden_keys_may_hold_any_finite_number(variables):
    x, source = draw(1, 2, WIDTH, seed=20), draw(1, 4, WIDTH, seed=21)
    mask = jnp.asarray([[[[True, True, False, False]]]])
    expected = attend(variables, x, source[:, :2])
    found = attend(variables, x, source.at[:, 2:].set(1e6), mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_bias_moves_attention_to_the_key_it_favours(variables):
    x, source = draw(1, 2, WIDTH, seed=20), draw(1, 4, WIDTH, seed=21)
    bias = jnp.zeros((1, 1, 1, 4)).at[..., 2].set(1e4)
    expected = attend(variables, x, source[:, 2:3])
    np.testing.assert_allclose(attend(variables, x, source, bias=bias), expected, atol=1e-5)


def test_keys_have_no_bias_where_the_family_has_none(variables):
    biases = {
        name: {k: v for k, v in layer.items() if not (name == "key" and k == "bias")}
        for name, layer in variables["params"].items()
    }
    source = draw(1, 4, WIDTH, seed=21)
    module = Attention(WIDTH, HEADS, key_bias=False)
    found = module.apply({"params": biases}, source, method="project").key
    expected = source @ biases["key"]["weight"].T
    np.testing.assert_allclose(found.swapaxes(1, 2).reshape(expected.shape), expected, atol=1e-5)


def test_a_token_may_see_those_up_to_its_own():
    expected = np.array([[1, 1, 0, 0], [1, 1, 1, 0]], bool)
    assert (visible(2, 4, 1, None, None)[0, 0] == expected).all()
    assert (visible(2, 4, jnp.int32(1), None, None)[0, 0] == expected).all()


def test_a_hypothesis_may_see_its_ancestors_alone():
    # Slot 0 began in slot 1; slot 1 has written all its tokens itself.
    ancestry = jnp.asarray([[[1, 0, 0], [1, 1, 1]]])
    seen = visible(1, 3, 1, ancestry, None).reshape(2, 3, 2)
    expected = [[[0, 1], [1, 0], [0, 0]], [[0, 1], [0, 1], [0, 0]]]
    assert (seen == np.array(expected, bool)).all()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_one_head_at_a_time_computes_what_all_heads_at_once_do(masked, biased):
    query, key, value = (draw(2, HEADS, 6, HEAD_DIM, seed=seed) for seed in range(3))
    mask = jnp.asarray(np.random.default_rng(3).random((2, 1, 6, 6)) < 0.4).at[0, 0, 2].set(False)
    mask = mask if masked else None
    bias = draw(1, HEADS, 6, 6, seed=4) if biased else None
    found = attend_module._head_by_head(query, key, value, mask, bias)
    expected = attend_module._whole(query, key, value, mask, bias)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_write_replaces_only_the_given_positions():
    old = KeyValue(draw(1, HEADS, 5, HEAD_DIM), draw(1, HEADS, 5, HEAD_DIM, seed=1))
    new = KeyValue(jnp.ones((1, HEADS, 2, HEAD_DIM)), jnp.zeros((1, HEADS, 2, HEAD_DIM)))
    for written, before, part in zip(old.write(new, 2), old, new, strict=True):
        assert (written[:, :, 2:4] == part).all()
        assert (written[:, :, :2] == before[:, :, :2]).all()
        assert (written[:, :, 4:] == before[:, :, 4:]).all()
