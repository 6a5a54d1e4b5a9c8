"""The guide of cross-attention."""

import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.training.guide import TOLERANCE, guide_sum

LABELS = jnp.array([[5, 6, 7, 8], [5, 6, -100, -100]])
MASK = jnp.array([[True] * 8, [True] * 4 + [False] * 4])


def heard(*heads):
    """Returns the weights ``[2, heads, 4, 8]`` of one layer."""
    weights = jnp.stack(heads, axis=1)
    return {"decoder": {"transformer": {"layers_0": {"cross_attention": {"weights": (weights,)}}}}}


def reading(places):
    """Returns the weights of a head of which each label reads one state."""
    return jnp.eye(8)[jnp.array(places)]


ALONG = reading([[1, 3, 5, 7], [1, 3, 0, 0]])
ASTRAY = reading([[7, 7, 0, 0], [3, 0, 0, 0]])


def test_reading_from_the_beginning_to_the_end_costs_little():
    along, astray = (float(guide_sum(heard(w), MASK, LABELS)) for w in (ALONG, ASTRAY))
    assert 0 <= along < 0.1 * 6
    assert 0.8 * 6 < astray <= 6


def test_the_penalty_is_that_of_the_paper():
    apart = np.array([0.5 / 2 - 3.5 / 4, 1.5 / 2 - 0.5 / 4])
    expected = (1 - np.exp(-(apart**2) / (2 * TOLERANCE**2))).sum()
    labels = LABELS.at[0].set(-100)
    assert float(guide_sum(heard(ASTRAY), MASK, labels)) == pytest.approx(expected, rel=1e-5)


def test_the_second_half_of_the_heads_is_free():
    bound = guide_sum(heard(ALONG), MASK, LABELS)
    assert float(guide_sum(heard(ALONG, ASTRAY), MASK, LABELS)) == pytest.approx(float(bound))


def test_layers_that_keep_no_weights_are_refused():
    with pytest.raises(ConfigError, match="scan=False"):
        guide_sum({}, MASK, LABELS)
