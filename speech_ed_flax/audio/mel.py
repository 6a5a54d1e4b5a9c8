"""Mel scales, their filters, and spectra of overlapping frames; all in float64."""

from collections.abc import Callable
from functools import cache

import numpy as np


@cache
def slaney_filters(mels: int, n_fft: int, sampling_rate: int, highest: float) -> np.ndarray:
    """Returns Slaney's triangular filters from 0 to ``highest`` Hz, each of unit area.

    They are triangles over frequency.

    Returns:
        float64 ``[mels, bins]``, read-only: every caller shares it.
    """
    corners = _slaney_to_hertz(np.linspace(0.0, _hertz_to_slaney(highest), mels + 2))
    bins = np.linspace(0.0, sampling_rate / 2, n_fft // 2 + 1)
    return _read_only(_triangles(bins, corners) * (2.0 / (corners[2:] - corners[:-2]))[:, None])


@cache
def kaldi_filters(mels: int, n_fft: int, sampling_rate: int) -> np.ndarray:
    """Returns Kaldi's triangular filters from 20 Hz to half the rate, each of height 1.

    They are triangles over mels.

    Returns:
        float64 ``[mels, bins]``, read-only: every caller shares it.
    """
    lowest, highest = _hertz_to_kaldi(np.array([20.0, sampling_rate // 2]))
    bins = _hertz_to_kaldi(np.arange(n_fft // 2 + 1) * (sampling_rate / n_fft))
    return _read_only(_triangles(bins, np.linspace(lowest, highest, mels + 2)))


def overlapping(samples: np.ndarray, size: int, hop: int) -> np.ndarray:
    """Returns the frames ``[frames, size]`` that begin at each ``hop`` and fit; a view."""
    if len(samples) < size:
        return np.empty((0, size), samples.dtype)
    return np.lib.stride_tricks.sliding_window_view(samples, size)[::hop]


def power(frames: np.ndarray, n_fft: int) -> np.ndarray:
    """Returns the squared magnitudes ``[frames, bins]`` of frames padded to ``n_fft`` samples."""
    spectrum = np.fft.rfft(frames, n_fft)
    return spectrum.real**2 + spectrum.imag**2


def log_mel(power: np.ndarray, filters: np.ndarray, log: Callable, floor: float) -> np.ndarray:
    """Returns ``log(max(mel, floor))`` ``[frames, mels]`` of power ``[frames, bins]``."""
    return log(np.maximum(power @ filters.T, floor))


def _triangles(bins: np.ndarray, corners: np.ndarray) -> np.ndarray:
    low, centre, high = (corners[at : at + len(corners) - 2, None] for at in range(3))
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def _hertz_to_kaldi(hertz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log1p(hertz / 700.0)


# Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz at 15 mels, then 27 mels for each
# factor of 6.4 in frequency.
_KNEE_HERTZ, _KNEE_MELS = 1_000.0, 15.0
_MELS_PER_E = 27.0 / np.log(6.4)


def _hertz_to_slaney(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz * _KNEE_MELS / _KNEE_HERTZ
    return _KNEE_MELS + np.log(hertz / _KNEE_HERTZ) * _MELS_PER_E


def _slaney_to_hertz(mels: np.ndarray) -> np.ndarray:
    curved = _KNEE_HERTZ * np.exp((mels - _KNEE_MELS) / _MELS_PER_E)
    return np.where(mels < _KNEE_MELS, mels * _KNEE_HERTZ / _KNEE_MELS, curved)
