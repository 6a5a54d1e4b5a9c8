"""Where somebody speaks: by energy, or by a detector of the user's."""

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

import numpy as np

from speech_ed_flax.errors import ConfigError

FRAMES_PER_SECOND = 50
"""Frames of 20 ms, in which loudness and speech are measured."""

PAGE = 30
"""Seconds of sound that are judged together."""

GROUP = "speech_ed_flax.detectors"
"""Entry points of a package that has a detector: each makes a new one when it is called."""

_QUIETEST, _SOFTEST = -100.0, -60.0  # dB of full scale: of digital silence, and of any speech
_CONTRAST = 6.0  # dB by which speech rises above the noise, at least; steady noise never does
_RISE = 0.3  # of the distance from the noise to the loudest sound, where a room's echo is quieter
_NEIGHBOURS = 2  # frames heard on each side of one: no closure of 60 ms falls out of a word


@runtime_checkable
class Detector(Protocol):
    """Tells speech from everything else, page after page of one recording."""

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Returns whether there is speech in each frame of 20 ms, bool ``[frames]``.

        Args:
            samples: float32 ``[samples]``, the next page; only the last one is shorter than 30 s.
            rate: samples per second.
        """
        ...


class EnergyDetector:
    """Hears speech where sound is well above the noise of its surroundings.

    The noise is the level that the quietest tenth of the last 30 s stay below, the speech the one
    that the loudest twentieth exceed. Where the two are less than 6 dB apart nobody speaks:
    neither silence nor the noise of a machine is speech. A second of sound is too little to tell,
    and all of it that is not silent is speech.
    """

    def __init__(self):
        self._before = np.empty(0)

    def __call__(self, samples: np.ndarray, rate: int) -> np.ndarray:
        """Returns whether there is speech in each frame; see ``Detector``."""
        level = smooth(loudness(samples, rate), _NEIGHBOURS)
        around = np.concatenate([self._before, level])[-PAGE * FRAMES_PER_SECOND :]
        self._before = level
        if len(around) <= FRAMES_PER_SECOND:
            return level > _SOFTEST
        noise, speech = np.percentile(around, [10, 95])
        return level > max(noise + max(_CONTRAST, _RISE * (speech - noise)), _SOFTEST)


def find_detector(name: str) -> Callable[[], Detector]:
    """Returns what makes a detector: ``energy``, or one that an installed package has.

    Raises:
        ConfigError: no package has a detector of this name.
    """
    if name == "energy":
        return EnergyDetector
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(["energy", *sorted(found)])
        raise ConfigError(f"detector: {name!r} is not installed (there is {known}).")
    return found[name].load()


def hop_of(rate: int) -> int:
    """Returns the samples of a frame."""
    return max(1, rate // FRAMES_PER_SECOND)


def loudness(samples: np.ndarray, rate: int) -> np.ndarray:
    """Returns the level of each frame in dB of full scale ``[frames]``, the last one cut short."""
    hop = hop_of(rate)
    starts = np.arange(0, len(samples), hop)
    if not len(starts):
        return np.empty(0)
    energy = np.add.reduceat(np.square(samples, dtype=np.float64), starts)
    power = energy / np.diff(np.append(starts, len(samples)))
    return 10 * np.log10(np.maximum(power, 10 ** (_QUIETEST / 10)))


def smooth(level: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the mean level of each frame and its neighbours on each side."""
    if not len(level):
        return level
    around = np.pad(level, neighbours, mode="edge")
    return np.lib.stride_tricks.sliding_window_view(around, 2 * neighbours + 1).mean(axis=1)
