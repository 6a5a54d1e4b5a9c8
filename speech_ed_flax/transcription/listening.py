"""Recordings to clips of features, in a process that never imports JAX."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.audio.errors import AudioTruncatedError
from speech_ed_flax.audio.features import Features
from speech_ed_flax.audio.files import stream_audio
from speech_ed_flax.audio.segments import Cutting, cut
from speech_ed_flax.audio.speech import find_detector
from speech_ed_flax.data.buckets import Budget, plan_shapes
from speech_ed_flax.data.span import Span
from speech_ed_flax.errors import AudioError

BUCKETS = (2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
"""Seconds that clips are padded to, so that few shapes are ever compiled."""

_LEVELS = 10  # lengths a second that are considered where they are planned

_SHORTEST = 1_000  # samples of the shortest clip with a state in any encoder; less has no text
_SLACK = 0.1  # seconds by which a part of a recording may end behind it


def plan_buckets(
    seconds: Iterable[float | int], longest: float | int, most: int
) -> tuple[float, ...]:
    """Returns the seconds to which clips are padded with the least padding, ascending.

    Args:
        seconds: that recordings last; those beyond ``longest`` will be cut into any length.
        longest: seconds of a clip.
        most: lengths, for each of which the model is compiled.
    """
    lasting = np.asarray(list(seconds))
    clips = [*lasting[lasting <= longest]]
    if len(clips) < len(lasting):
        clips += [min(length, longest) for length in BUCKETS]
    levels = np.maximum(np.ceil(np.asarray(clips) * _LEVELS - 1e-6), 1).astype(np.int64)
    budget = Budget(samples=int(longest * _LEVELS) + 1, shapes=most, rows=1, sample_multiple=1)
    shapes = plan_shapes(levels, np.ones_like(levels), budget)
    return tuple(shape.samples / _LEVELS for shape in shapes)


@dataclass(frozen=True)
class Job:
    """Something to be transcribed.

    Attributes:
        source: a file, bytes, or an array with its rate; see ``read_audio``.
        name: what it is called in results and messages.
        offset: seconds at which the wanted part of it starts.
        duration: seconds of that part; None for all that follows.
    """

    source: Any
    name: str
    offset: float = 0.0
    duration: float | None = None


def as_job(source: Any, position: int) -> Job:
    """Returns a source as a job: what is no file is named by its position among the sources."""
    if isinstance(source, Job):
        return source
    is_path = isinstance(source, str) or hasattr(source, "__fspath__")
    return Job(source, str(source) if is_path else str(position))


@dataclass(frozen=True)
class Clip:
    """A stretch of speech as the encoder hears it.

    Attributes:
        start: seconds of the recording.
        end: likewise.
        padded: seconds that its features last, padding included.
        values: of its features, without the batch.
        mask: which of them are real.
    """

    start: float
    end: float
    padded: float
    values: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class End:
    """The end of a recording: its seconds, and what is wrong with it, if anything is."""

    duration: float
    error: str | None = None


@dataclass(frozen=True)
class Listening:
    """How recordings become clips.

    Attributes:
        features: what the encoder hears.
        longest: most seconds of a clip; those of the encoder, if it always hears the same.
        buckets: seconds that clips are padded to, ascending; to ``longest``, if none suffices.
        detector: of speech; see ``find_detector``.
        allow_truncated: whether a file that ends early is heard as far as it goes.
    """

    features: Features
    longest: float = BUCKETS[-1]
    buckets: tuple[float, ...] = BUCKETS
    detector: str = "energy"
    allow_truncated: bool = False

    def listen(self, job: Job) -> Iterator[Clip | End]:
        """Yields the clips of a recording in which somebody speaks, and its end."""
        rate = self.features.sampling_rate
        sound = _Counted(_part(self._blocks(job), job, rate))
        detector = find_detector(self.detector)()
        try:
            for start, samples in cut(sound, rate, self._cutting, detector):
                if len(samples) >= _SHORTEST:
                    yield self._clip(start / rate, samples)
        except AudioError as error:
            yield End(sound.samples / rate, str(error))
        else:
            yield End(sound.samples / rate)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Returns the seconds to which clips are expected to be padded."""
        fixed = self.features.fixed_samples
        return self.buckets if fixed is None else (fixed / self.features.sampling_rate,)

    def samples(self, seconds: float) -> int:
        """Returns the samples of a clip that is padded to so many seconds."""
        return round(seconds * self.features.sampling_rate)

    @property
    def _cutting(self) -> Cutting:
        heard = self.longest if self.features.fixed_samples is None else self.lengths[0]
        return Cutting(longest=min(heard, self.longest))

    def _blocks(self, job: Job) -> Iterator[np.ndarray]:
        rate, allowed = self.features.sampling_rate, self.allow_truncated
        source = job.source.read() if isinstance(job.source, Span) else job.source
        return stream_audio(source, rate, allow_truncated=allowed)

    def _clip(self, start: float, samples: np.ndarray) -> Clip:
        seconds, lengths = len(samples) / self.features.sampling_rate, self.lengths
        found = bisect_left(lengths, seconds)
        padded = lengths[found] if found < len(lengths) else self.longest
        values, mask = self.features.features([samples], self.samples(padded))
        return Clip(start, start + seconds, padded, values[0], mask[0])


class _Counted:
    """Counts samples as they pass."""

    def __init__(self, blocks: Iterable[np.ndarray]):
        self._blocks, self.samples = blocks, 0

    def __iter__(self) -> Iterator[np.ndarray]:
        for block in self._blocks:
            self.samples += len(block)
            yield block


def _part(blocks: Iterator[np.ndarray], job: Job, rate: int) -> Iterator[np.ndarray]:
    """Yields the wanted part of a recording, and reads no further."""
    if not job.offset and job.duration is None:
        yield from blocks
        return
    first = round(job.offset * rate)
    last = None if job.duration is None else first + round(job.duration * rate)
    position = 0
    for block in blocks:
        end = None if last is None else max(last - position, 0)
        yield block[max(first - position, 0) : end]
        position += len(block)
        if last is not None and position >= last:
            return
    if position < (last or first) - _SLACK * rate:
        raise AudioTruncatedError(
            f"{job.name}: it ends at {position / rate:.2f} s, its part at "
            f"{(last or first) / rate:.2f} s (correct the offset and the duration)"
        )
