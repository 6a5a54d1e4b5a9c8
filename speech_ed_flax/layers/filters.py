"""What a wide first convolution over samples begins with: the filters of a mel spectrogram."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.types import Array

RATE = 16_000
LOWEST, HIGHEST = 80.0, 7_200.0
"""Hertz; the centres of the first and the last filter."""

PHASES = 4
"""Of each frequency: what a rectifier lets through of four, a quarter of a turn apart, adds up to
how loud the frequency is, whatever its phase."""

WIDE = 100
"""Samples from which a kernel holds a turn of most frequencies of speech."""


def mel_sinusoids(key: Any, shape: tuple[int, int, int], dtype: Any = jnp.float32) -> Array:
    """Returns windowed sinusoids, equally far apart on the mel scale; none of it is random.

    An encoder that is trained on little speech need not find out that sound is made of frequencies
    (Zeghidour et al., 2018, begin alike). High ones are louder, as speech has less of them.

    Args:
        key: not used; initialisers have one.
        shape: kernel size, 1, width.
        dtype: of the result.
    """
    del key
    size, _, width = shape
    count = -(-width // PHASES)
    lowest, highest = (2595 * np.log10(1 + hertz / 700) for hertz in (LOWEST, HIGHEST))
    hertz = 700 * (10 ** (np.linspace(lowest, highest, count) / 2595) - 1)
    times = np.arange(size)[:, None] - (size - 1) / 2
    turns = times * hertz / RATE
    kernels = [np.cos(2 * np.pi * (turns + phase / PHASES)) for phase in range(PHASES)]
    kernel = np.concatenate(kernels, 1)[:, :width] * np.hanning(size + 2)[1:-1, None]
    kernel *= np.tile(hertz, PHASES)[:width]
    kernel *= np.sqrt(2 * width / np.square(kernel).sum())  # as loud as He's random kernels
    return jnp.asarray(kernel[:, None], dtype)
