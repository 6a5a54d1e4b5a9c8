"""Rules over parameter paths: first match, and freezing."""

import jax
import jax.numpy as jnp

from speech_ed_flax.paths import FEATURE_ENCODER, first_match, freeze

PARAMS = {
    "encoder": {
        "feature_encoder": {"layers_0": {"kernel": jnp.ones(2)}},
        "feature_projection": {"kernel": jnp.ones(2)},
    },
    "decoder": {"encoder": {"feature_encoder": {"kernel": jnp.ones(2)}}},
}


def total(params, *patterns):
    return sum(leaf.sum() for leaf in jax.tree.leaves(freeze(params, *patterns)))


def test_the_first_pattern_that_is_found_decides():
    rules = [(r"bias$", 1), (r"^encoder/", 2), (r"encoder", 3)]
    assert first_match("encoder/layers_0/bias", rules, 0) == 1
    assert first_match("encoder/layers_0/kernel", rules, 0) == 2
    assert first_match("decoder/encoder/kernel", rules, 0) == 3
    assert first_match("decoder/kernel", rules, 0) == 0


def test_freeze_stops_gradients_at_matching_paths_only():
    gradient = jax.grad(total)(PARAMS, FEATURE_ENCODER)
    assert (gradient["encoder"]["feature_encoder"]["layers_0"]["kernel"] == 0).all()
    assert (gradient["encoder"]["feature_projection"]["kernel"] == 1).all()
    assert (gradient["decoder"]["encoder"]["feature_encoder"]["kernel"] == 1).all()


def test_freeze_changes_no_value_and_no_structure():
    frozen = freeze(PARAMS, FEATURE_ENCODER, r"^decoder/")
    assert jax.tree.structure(frozen) == jax.tree.structure(PARAMS)
    assert all((a == b).all() for a, b in zip(*map(jax.tree.leaves, (frozen, PARAMS)), strict=True))


def test_freeze_without_patterns_freezes_nothing():
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(jax.grad(total)(PARAMS)))
