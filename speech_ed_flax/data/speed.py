"""Speed perturbation: resampled sound whose length is known before it is heard."""

import numpy as np
import soxr


def stretched(samples: np.ndarray | int, speed: float | int) -> np.ndarray:
    """Returns how many samples there are at another speed, int64."""
    return np.asarray(np.ceil(np.asarray(samples) / speed), np.int64)


def change_speed(clip: np.ndarray, speed: float | int) -> np.ndarray:
    """Returns a clip at another speed and pitch, of exactly ``stretched(len(clip), speed)``.

    Args:
        clip: float32 ``[samples]``.
        speed: 1.1 makes it shorter and higher.
    """
    if speed == 1 or len(clip) == 0:
        return clip
    return fit(soxr.resample(clip, float(speed), 1.0), int(stretched(len(clip), speed)))


def fit(clip: np.ndarray, length: int) -> np.ndarray:
    """Returns a clip cut to ``length`` samples, or filled up with silence."""
    if len(clip) >= length:
        return clip[:length]
    return np.pad(clip, (0, length - len(clip)))
