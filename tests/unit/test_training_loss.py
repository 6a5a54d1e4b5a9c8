"""The loss of training: sums over labels, equal to PyTorch's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.training.loss import ctc_head, ctc_sum, loss_sums
from speech_ed_flax.training.settings import LossSettings, StepSettings
from speech_ed_flax.training.step import misread

NUMBERS = np.random.default_rng(0)
LOGITS = jnp.asarray(NUMBERS.standard_normal((3, 5, 11)), jnp.float32)
LABELS = jnp.array([[3, 4, 5, 6, 7], [8, -100, 9, -100, -100], [-100] * 5])

STATES = jnp.asarray(NUMBERS.standard_normal((3, 12, 6)), jnp.float32)
REAL = jnp.arange(12) < jnp.array([[12], [9], [3]])
TEXTS = jnp.array([[2, 2, 5, 1], [-100, 7, 3, 1], [4, 4, 4, 1]])
CTC = LossSettings(ctc_weight=0.3, ctc_blank=0, ctc_silent=(1,))


@pytest.fixture(scope="module")
def head():
    return ctc_head(jax.random.key(0), 6, 11)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_pytorch(smoothing):
    torch = pytest.importorskip("torch")
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(np.array(LOGITS)).reshape(-1, 11),
        torch.from_numpy(np.array(LABELS)).long().reshape(-1),
        label_smoothing=smoothing,
        reduction="sum",
    )
    sums = loss_sums(LOGITS, LABELS, LossSettings(label_smoothing=smoothing))
    np.testing.assert_allclose(sums.loss, expected.item(), rtol=1e-6)
    assert sums.labels == 7


def test_sums_of_parts_are_the_sums_of_the_whole():
    settings = LossSettings(label_smoothing=0.1, z_loss=1e-2)
    parts = [loss_sums(LOGITS[rows], LABELS[rows], settings) for rows in (slice(1), slice(1, 3))]
    whole = loss_sums(LOGITS, LABELS, settings)
    np.testing.assert_allclose(parts[0].loss + parts[1].loss, whole.loss, rtol=1e-6)
    assert parts[0].labels + parts[1].labels == whole.labels


def test_no_label_is_no_loss():
    sums = loss_sums(LOGITS, jnp.full_like(LABELS, -100), LossSettings(z_loss=1.0))
    assert sums.loss == 0
    assert sums.labels == 0


def test_z_loss_is_the_square_of_the_log_partition():
    plain, with_z = (loss_sums(LOGITS, LABELS, LossSettings(z_loss=z)).loss for z in (0.0, 0.5))
    partition = np.log(np.exp(np.asarray(LOGITS, np.float64)).sum(-1))
    expected = 0.5 * np.square(partition)[np.asarray(LABELS) >= 0].sum()
    np.testing.assert_allclose(with_z - plain, expected, rtol=1e-5)


def test_ctc_is_that_of_pytorch_over_what_is_heard_and_possible(head):
    torch = pytest.importorskip("torch")
    logits = torch.from_numpy(np.array(STATES @ head["weight"].T + head["bias"]))
    expected = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        torch.tensor([2, 2, 5, 7, 3, 4, 4, 4]),
        torch.from_numpy(np.array(REAL.sum(1))),
        torch.tensor([3, 2, 3]),
        reduction="sum",
        zero_infinity=True,  # three states do not hold three equal labels
    )
    found = ctc_sum(head, STATES, REAL, TEXTS, CTC)
    np.testing.assert_allclose(found, expected.item(), rtol=1e-5)


def test_ctc_reads_no_padded_state_and_its_gradients_are_finite(head):
    padded = jnp.where(REAL[:, :, None], STATES, 100.0)
    value, gradient = jax.value_and_grad(lambda s: ctc_sum(head, s, REAL, TEXTS, CTC))(padded)
    np.testing.assert_allclose(value, ctc_sum(head, STATES, REAL, TEXTS, CTC), rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert not np.asarray(gradient)[~np.asarray(REAL)].any()
    assert not np.asarray(gradient)[2].any(), "an impossible alignment pulls at nothing"


def test_the_weight_of_ctc_is_its_share_of_the_loss():
    sums = loss_sums(LOGITS, LABELS, CTC, ctc=2.0)
    np.testing.assert_allclose(sums.loss, 0.7 * sums.cross_entropy + 0.3 * 2.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"label_smoothing": 1.5}, "label_smoothing=1.5"),
        ({"ctc_weight": -0.1, "ctc_blank": 0}, "ctc_weight=-0.1"),
    ],
)
def test_a_loss_that_makes_no_sense_is_refused(fields, named):
    with pytest.raises(ConfigError, match=named):
        LossSettings(**fields)


def test_a_share_of_ctc_without_a_blank_is_refused():
    with pytest.raises(ConfigError, match="ctc_blank"):
        StepSettings(0, 1, LossSettings(ctc_weight=0.3))


def test_noise_replaces_a_share_of_the_tokens_but_never_the_first():
    tokens = jnp.full((200, 30), 7)
    noisy = misread(tokens, jax.random.key(0), 0.4, 50)
    assert (noisy[:, 0] == 7).all()
    assert float((noisy[:, 1:] != 7).mean()) == pytest.approx(0.4 * 49 / 50, abs=0.02)
    assert int(noisy.min()) == 0
    assert int(noisy.max()) == 49
