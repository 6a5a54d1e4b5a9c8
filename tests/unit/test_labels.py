"""Labels: the shift and the loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.labels import IGNORED, cross_entropy, shift_tokens_right


@pytest.fixture
def logits():
    return jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 7)), jnp.float32)


def test_the_shift_puts_the_start_in_front_and_pads_what_is_ignored():
    labels = jnp.array([[5, 6, 7, 8], [5, IGNORED, IGNORED, IGNORED]])
    shifted = shift_tokens_right(labels, pad_token_id=1, decoder_start_token_id=3)
    assert shifted.tolist() == [[3, 5, 6, 7], [3, 5, 1, 1]]
    assert shifted.dtype == labels.dtype


def test_the_shift_keeps_real_pad_and_start_tokens():
    shifted = shift_tokens_right(jnp.array([[3, 1, 2]]), pad_token_id=1, decoder_start_token_id=3)
    assert shifted.tolist() == [[3, 3, 1]]


def test_the_loss_is_the_mean_over_all_counted_labels_not_over_rows(logits):
    labels = jnp.array([[1, 2, 3], [4, IGNORED, IGNORED]])
    likelihood = np.asarray(jax.nn.log_softmax(logits))
    counted = [(0, 0, 1), (0, 1, 2), (0, 2, 3), (1, 0, 4)]
    expected = -np.mean([likelihood[place] for place in counted])
    np.testing.assert_allclose(cross_entropy(logits, labels), expected, rtol=1e-6)


def test_ignored_labels_have_no_gradient(logits):
    labels = jnp.array([[1, 2, IGNORED], [4, IGNORED, IGNORED]])
    gradient = jax.grad(cross_entropy)(logits, labels)
    assert (gradient[labels == IGNORED] == 0).all()
    assert (jnp.abs(gradient[labels != IGNORED]).sum(-1) > 0).all()


def test_the_loss_is_zero_and_has_a_gradient_where_no_label_counts(logits):
    labels = jnp.full((2, 3), IGNORED)
    loss, gradient = jax.value_and_grad(cross_entropy)(logits, labels)
    assert loss == 0
    assert (gradient == 0).all()


def test_the_loss_is_float32_for_halved_logits(logits):
    labels = jnp.array([[1, 2, 3], [4, 5, 6]])
    loss = cross_entropy(logits.astype(jnp.bfloat16), labels)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, cross_entropy(logits, labels), rtol=2e-2)
