"""Recordings in, text out, through any recogniser of batches; knows no model."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speech_ed_flax.audio.features import Features
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.audio.segments import split_at_quiet
from speech_ed_flax.errors import AudioError

SHORTEST = 1_000
"""Samples of the shortest clip with a state in any encoder (62 ms); less is silence: no text."""

BUCKETS = (2.5, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0)
"""Seconds that clips are padded to, so that few shapes are ever compiled."""

WINDOW = 16
"""Batches of clips that are read ahead and sorted by length before they are recognised."""

Recognise = Callable[[np.ndarray, np.ndarray], list[str]]
"""From values and mask, as ``Features.features`` gives them, to one text a row."""


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and its text; times in seconds."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Transcript:
    """What was heard in one recording.

    Attributes:
        source: the file's name, or the position of the array among the inputs.
        text: of the whole recording.
        segments: in order, each of at most 30 s, or of what the encoder hears if that is less.
        duration: of the recording in seconds.
        error: why there is no text, if the recording could not be read.
    """

    source: str
    text: str = ""
    segments: tuple[Segment, ...] = ()
    duration: float = 0.0
    error: str | None = None


@dataclass
class _Recording:
    source: str
    spans: list[tuple[int, int]]
    duration: float
    texts: list[str]
    error: str | None = None


@dataclass
class _Clip:
    samples: np.ndarray
    recording: _Recording
    index: int


def transcribe(
    sources: Iterable[Any],
    features: Features,
    recognise: Recognise,
    batch_size: int = 8,
    allow_truncated: bool = False,
) -> Iterator[Transcript]:
    """Transcribes recordings of any rate, channels and length; clips of several share batches.

    Recordings longer than 30 s, or than the encoder hears, are cut at quiet places. One that cannot
    be read gives a transcript with an error and stops nothing. Results come in the order of
    ``sources``, as soon as they are known; memory is bounded by the window, and by the longest
    recording.

    Args:
        sources: files, bytes or arrays with their rate; see ``read_audio``.
        features: what the encoder hears.
        recognise: from a batch of features to text.
        batch_size: most clips of one batch.
        allow_truncated: whether a file that ends early is transcribed as far as it goes.
    """
    waiting: list[_Recording] = []
    clips: list[_Clip] = []
    for position, source in enumerate(sources):
        recording, new = _read(source, position, features, allow_truncated)
        waiting.append(recording)
        clips += new
        if len(clips) >= WINDOW * batch_size:
            yield from _finish(waiting, clips, features, recognise, batch_size)
            waiting, clips = [], []
    yield from _finish(waiting, clips, features, recognise, batch_size)


def _read(source: Any, position: int, features: Features, allow_truncated: bool):
    """Returns a recording and its clips that are long enough to hold speech."""
    rate, fixed = features.sampling_rate, features.fixed_samples
    longest = BUCKETS[-1] if fixed is None else min(fixed / rate, BUCKETS[-1])
    name = (
        str(source) if isinstance(source, str) or hasattr(source, "__fspath__") else str(position)
    )
    try:
        samples = read_audio(source, rate, allow_truncated=allow_truncated)
    except AudioError as error:
        return _Recording(name, [], 0.0, [], str(error)), []
    spans = split_at_quiet(samples, rate, longest, longest / 3)
    recording = _Recording(name, spans, len(samples) / rate, [""] * len(spans))
    clips = [
        _Clip(samples[start:end], recording, index)
        for index, (start, end) in enumerate(spans)
        if end - start >= SHORTEST
    ]
    return recording, clips


def _finish(
    recordings: Sequence[_Recording],
    clips: list[_Clip],
    features: Features,
    recognise: Recognise,
    batch_size: int,
) -> Iterator[Transcript]:
    """Recognises all clips, longest first so that neighbours pad little, and joins the texts."""
    clips = sorted(clips, key=lambda clip: len(clip.samples), reverse=True)
    for first in range(0, len(clips), batch_size):
        batch = clips[first : first + batch_size]
        texts = _recognise(batch, features, recognise)
        for clip, text in zip(batch, texts, strict=True):
            clip.recording.texts[clip.index] = text.strip()
    for recording in recordings:
        yield _transcript(recording, features.sampling_rate)


def _recognise(batch: Sequence[_Clip], features: Features, recognise: Recognise) -> list[str]:
    """Recognises one batch, padded to a bucket and with silent rows to a power of two."""
    longest = max(len(clip.samples) for clip in batch)
    seconds = longest / features.sampling_rate
    bucket = next((b for b in BUCKETS if seconds <= b), BUCKETS[-1])
    rows = 1 << (len(batch) - 1).bit_length()
    silent = [np.zeros(0, np.float32)] * (rows - len(batch))
    pad_to = features.fixed_samples or int(bucket * features.sampling_rate)
    values, mask = features.features([clip.samples for clip in batch] + silent, pad_to)
    return recognise(values, mask)[: len(batch)]


def _transcript(recording: _Recording, rate: int) -> Transcript:
    segments = tuple(
        Segment(start / rate, end / rate, text)
        for (start, end), text in zip(recording.spans, recording.texts, strict=True)
        if text
    )
    text = " ".join(segment.text for segment in segments)
    return Transcript(recording.source, text, segments, recording.duration, recording.error)
