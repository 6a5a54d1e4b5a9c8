"""The filters that a wide first convolution begins with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import nn

from speech_ed_flax.layers.feature_encoder import FeatureEncoder, FeatureEncoderConfig
from speech_ed_flax.layers.filters import HIGHEST, LOWEST, PHASES, RATE, mel_sinusoids

COUNT = 32


@pytest.mark.parametrize("hertz", [LOWEST, 440.0, 2_000.0, HIGHEST])
def test_a_tone_is_heard_loudest_at_its_frequency_whatever_its_phase(hertz):
    kernel = np.asarray(mel_sinusoids(None, (400, 1, PHASES * COUNT)))[:, 0]
    mels = 2595 * np.log10(1 + np.array([LOWEST, hertz, HIGHEST]) / 700)
    expected = (COUNT - 1) * (mels[1] - mels[0]) / (mels[2] - mels[0])
    for phase in np.linspace(0, 2 * np.pi, 7):
        tone = np.sin(2 * np.pi * hertz * np.arange(400) / RATE + phase)
        loud = np.asarray(nn.relu(tone @ kernel)).reshape(PHASES, COUNT).sum(0)
        assert abs(loud.argmax() - expected) <= 1


def test_it_is_as_loud_as_a_random_kernel():
    kernel = mel_sinusoids(None, (200, 1, 30))  # a width that the phases do not divide
    assert kernel.shape == (200, 1, 30)
    random = nn.initializers.he_normal()(jax.random.key(0), kernel.shape)
    assert float(jnp.square(kernel).sum()) == pytest.approx(
        float(jnp.square(random).sum()), rel=0.1
    )


@pytest.mark.parametrize(("size", "random"), [(10, True), (200, False)])
def test_only_kernels_that_hold_a_turn_of_a_voice_begin_so(size, random):
    config = FeatureEncoderConfig((8,), (size,), (5,), False, "layer", "gelu")
    first, second = (
        FeatureEncoder(config, "exact").init(jax.random.key(seed), jnp.zeros((1, 400)), None)
        for seed in (0, 1)
    )
    kernels = [tree["params"]["layers_0"]["kernel"] for tree in (first, second)]
    assert (not np.array_equal(*kernels)) == random
