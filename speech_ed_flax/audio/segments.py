"""Cuts recordings where nobody speaks, while they are read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from speech_ed_flax.audio.speech import (
    FRAMES_PER_SECOND,
    PAGE,
    Detector,
    EnergyDetector,
    hop_of,
    loudness,
    smooth,
)
from speech_ed_flax.errors import AudioError

_NEIGHBOURS = 5  # frames heard on each side of a cut: a pause of 0.2 s beats a short closure


class Stretch(NamedTuple):
    """A part of a recording.

    Attributes:
        start: sample of the recording at which it starts.
        samples: float32 ``[samples]``.
    """

    start: int
    samples: np.ndarray


@dataclass(frozen=True)
class Cutting:
    """Where recordings are cut; all in seconds.

    Attributes:
        longest: most of one stretch.
        pause: silence in which a stretch may end.
        click: sound that is too short to be speech.
        padding: silence that is kept before and behind speech.

    Raises:
        AudioError: a stretch holds no more than its padding.
    """

    longest: float | int = 30.0
    pause: float | int = 0.3
    click: float | int = 0.06
    padding: float | int = 0.2

    def __post_init__(self):
        if not self.longest > 2 * self.padding + 1 / FRAMES_PER_SECOND:
            raise AudioError(
                f"longest={self.longest}: a stretch is longer than the {self.padding} s of silence "
                "at both its ends (raise it)."
            )

    @property
    def long_pause(self) -> float | int:
        """Silence in which a stretch always ends: models of short clips know no long pauses."""
        return max(self.pause, self.longest / 8)


class _Found(NamedTuple):
    """First frame of a stretch, the frame behind it, and the one to go on from."""

    start: int
    end: int
    resume: int


def cut(
    blocks: Iterable[np.ndarray],
    rate: int,
    cutting: Cutting | None = None,
    detector: Detector | None = None,
) -> Iterator[Stretch]:
    """Yields the stretches of a recording in which somebody speaks, in order, as it is read.

    A recording that is short enough is one stretch, or none if it is silent. A longer one is cut
    in the last pause that a stretch may reach, or in a long one; where there is none, at the
    quietest place of its last third. Little more than the longest stretch is ever held.

    Args:
        blocks: float32 ``[samples]`` each, of any length.
        rate: samples per second.
        cutting: where it is cut.
        detector: of speech; by energy if omitted.
    """
    held = _Held(rate, Cutting() if cutting is None else cutting)
    detector = EnergyDetector() if detector is None else detector
    for page, is_last in _pages(blocks, PAGE * FRAMES_PER_SECOND * hop_of(rate)):
        held.add(page, detector(page, rate))
        yield from held.take(is_last)


def _pages(blocks: Iterable[np.ndarray], size: int) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields blocks of one size, only the last one smaller, and whether each is the last."""
    parts, count = [np.empty(0, np.float32)], 0
    for block in blocks:
        parts.append(block)
        count += len(block)
        if count > size:
            waiting = np.concatenate(parts)
            while len(waiting) > size:
                yield waiting[:size], False
                waiting = waiting[size:]
            parts, count = [waiting], len(waiting)
    yield np.concatenate(parts), True


class _Held:
    """Sound that is not cut yet, with the loudness and the speech in each of its frames."""

    def __init__(self, rate: int, cutting: Cutting):
        self._rate, self._hop, self._cutting = rate, hop_of(rate), cutting
        self._first = 0  # frame of the recording that comes first here
        self._free = 0  # frames here that a stretch has taken already
        self._samples = np.empty(0, np.float32)
        self._level, self._speech = np.empty(0), np.empty(0, bool)

    def add(self, page: np.ndarray, speech: np.ndarray) -> None:
        """Appends a page."""
        self._samples = np.concatenate([self._samples, page])
        level = smooth(loudness(page, self._rate), _NEIGHBOURS)
        self._level = np.concatenate([self._level, level])
        self._speech = np.concatenate([self._speech, speech])

    def take(self, is_last: bool) -> Iterator[Stretch]:
        """Yields the stretches whose end is known, and lets go of the sound in and before them."""
        longest = self._cutting.longest * self._rate
        if is_last and self._first == 0 and len(self._samples) <= longest:
            if self._speech.any():
                yield Stretch(0, self._samples)
            return
        position = self._free
        while found := next_stretch(
            self._speech[position:], self._level[position:], self._cutting, is_last
        ):
            found = _Found(*(position + frame for frame in found))
            yield self._cut(found)
            position = found.resume
        self._let_go(position)

    def _cut(self, found: _Found) -> Stretch:
        padding = _frames(self._cutting.padding)
        first = max(found.start - padding, self._free)
        silence = found.resume - found.end
        if found.resume < len(self._speech):
            silence //= 2  # the next stretch has the other half
        self._free = found.end + min(padding, silence)
        samples = self._samples[first * self._hop : self._free * self._hop]
        return Stretch((self._first + first) * self._hop, samples)

    def _let_go(self, position: int) -> None:
        """Drops what no stretch will need: all silence but that before the next word."""
        waiting = np.flatnonzero(self._speech[position:])
        start = position + int(waiting[0]) if waiting.size else len(self._speech)
        frames = max(start - _frames(self._cutting.padding), self._free)
        self._samples = self._samples[frames * self._hop :]
        self._level, self._speech = self._level[frames:], self._speech[frames:]
        self._first, self._free = self._first + frames, 0


def next_stretch(
    speech: np.ndarray, level: np.ndarray, cutting: Cutting, is_last: bool
) -> _Found | None:
    """Returns where the next stretch is, without padding; None if that cannot be known yet.

    Args:
        speech: of each frame, whether somebody speaks, bool ``[frames]``.
        level: loudness of each frame in dB ``[frames]``.
        cutting: where to cut.
        is_last: whether the recording ends with these frames.
    """
    speech = _without_clicks(speech, _frames(cutting.click), is_last)
    speaking = np.flatnonzero(speech)
    if not speaking.size:
        return None
    start = int(speaking[0])
    limit = start + _frames(cutting.longest) - 2 * _frames(cutting.padding)
    pauses = _runs(~speech)
    pauses = pauses[(pauses[:, 0] > start) & (pauses[:, 0] <= limit)]
    lengths = pauses[:, 1] - pauses[:, 0]
    long = pauses[lengths >= _frames(cutting.long_pause)]
    if long.size:
        return _Found(start, *long[0].tolist())
    if is_last and speaking[-1] < limit:
        return _Found(start, int(speaking[-1]) + 1, len(speech))
    if not is_last and len(speech) < limit + _frames(cutting.pause):
        return None
    pauses = pauses[lengths >= _frames(cutting.pause)]
    if pauses.size:
        return _Found(start, *pauses[-1].tolist())
    end = _quietest(level, limit - (limit - start) // 3, limit)
    goes_on = int(np.argmin(np.append(speech[end:], False)))  # frames until nobody speaks
    if goes_on < _frames(cutting.click):
        end += goes_on  # alone they would pass for a click
    return _Found(start, end, end)


def _without_clicks(speech: np.ndarray, shortest: int, is_last: bool) -> np.ndarray:
    speech = speech.copy()
    for start, end in _runs(speech):
        if end - start < shortest and (is_last or end < len(speech)):
            speech[start:end] = False
    return speech


def _runs(values: np.ndarray) -> np.ndarray:
    """Returns the first frame of each run of true values and the one behind it ``[runs, 2]``."""
    edges = np.diff(np.concatenate([[False], values, [False]]))
    return np.flatnonzero(edges).reshape(-1, 2)


def _quietest(level: np.ndarray, first: int, last: int) -> int:
    """Returns the latest of the quietest frames."""
    return last - int(np.argmin(level[first : last + 1][::-1]))


def _frames(seconds: float | int) -> int:
    return round(seconds * FRAMES_PER_SECOND)
