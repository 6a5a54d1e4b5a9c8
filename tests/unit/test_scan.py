"""Layers in a loop compute what they compute one after the other."""

from dataclasses import replace

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import random_params

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.transformer import LayerConfig, TransformerEncoder
from speech_ed_flax.model import abstract_params, build, with_layers

INPUTS, MASK = families.speech(families.ENCODERS["wav2vec2"])
TOKENS = jnp.asarray(np.maximum(families.text(), 0))


def make(decoder, encoder="wav2vec2"):
    module = build(families.joint(families.ENCODERS[encoder], families.DECODERS[decoder]))
    return module, random_params(module)


def loss(module, params, rngs=None):
    logits, states = module.apply(
        {"params": params}, jnp.asarray(INPUTS), TOKENS, jnp.asarray(MASK, bool), rngs=rngs
    )
    return jnp.square(jax.nn.log_softmax(logits)).mean() + jnp.square(states).mean()


@pytest.mark.parametrize(
    ("encoder", "decoder", "remat"),
    [
        ("wav2vec2", "bart", "none"),
        ("wav2vec2", "mbart", "full"),
        ("wav2vec2", "prophetnet", "dots"),
        ("wav2vec2", "roformer", "none"),
        ("wav2vec2-conformer", "bart", "dots"),
    ],
)
def test_values_and_gradients_are_the_same(encoder, decoder, remat):
    module, params = make(decoder, encoder)
    expected = jax.jit(jax.value_and_grad(lambda p: loss(module, p)))(params)
    looped = with_layers(module, scan=True, remat=remat)
    found = jax.jit(jax.value_and_grad(lambda p: loss(looped, p)))(params)
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-5 * largest)


def test_a_checkpoint_is_the_same_with_and_without():
    module, _ = make("bart")
    looped = with_layers(module, scan=True)
    assert abstract_params(looped) == abstract_params(module)


def test_dropout_and_layer_drop_are_on_with_a_key():
    module, params = make("bart")
    looped = with_layers(module, scan=True, dropout=0.5, layer_drop=0.5)
    compiled = jax.jit(lambda p, key: loss(looped, p, {"dropout": key}))
    drawn = {float(compiled(params, jax.random.key(seed))) for seed in range(4)}
    assert len(drawn) == 4
    assert float(compiled(params, jax.random.key(0))) in drawn


@pytest.mark.parametrize("scan", [False, True])
def test_the_first_layer_is_never_skipped_where_it_stays(scan):
    layer = LayerConfig(8, 2, 8, "relu", pre_norm=True, layer_drop=1.0, scan=scan)
    x = jax.random.normal(jax.random.key(0), (1, 4, 8))
    stay = replace(layer, first_stays=True)
    params = TransformerEncoder(layer, 2).init(jax.random.key(1), x)

    def run(config, depth=2):
        key = jax.random.key(2)
        return TransformerEncoder(config, depth).apply(params, x, rngs={"dropout": key})

    first = replace(stay, layer_drop=0.0, scan=False)
    np.testing.assert_allclose(run(stay), run(first, depth=1), rtol=0, atol=1e-6)
    assert np.abs(run(layer) - run(stay)).max() > 1e-3


def test_layers_that_are_not_alike_are_refused():
    config = families.joint(
        families.ENCODERS["wav2vec2"],
        families.vary(families.DECODERS["gpt2"], scale_attn_by_inverse_layer_idx=True),
    )
    with pytest.raises(ConfigError, match="scan=True"):
        with_layers(build(config), scan=True)
