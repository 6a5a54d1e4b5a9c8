"""Clips of many recordings share batches; their texts come back in the order of the recordings."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.transcription.judgement import Hypothesis, Thresholds, judge
from speech_ed_flax.transcription.listening import Clip, End, Job, Listening, as_job
from speech_ed_flax.transcription.reading import read
from speech_ed_flax.transcription.transcript import Segment, Transcript

_LOGGER = logging.getLogger(__name__)

Recognise = Callable[[np.ndarray, np.ndarray, float], Sequence[Hypothesis]]
"""From values and mask, as ``Features.features`` gives them, and the seconds that each row lasts,
padding included, to one hypothesis a row."""

WINDOW = 16
"""Batches of clips that a clip waits for others of its length, at most."""


def out_of_memory(error: RuntimeError) -> bool:
    """Tells whether XLA had not enough memory."""
    return str(error).startswith("RESOURCE_EXHAUSTED")


@dataclass
class _Recording:
    """A recording whose text is not all known; a slot for each of its segments."""

    job: Job
    slots: list[Segment | None] = field(default_factory=list)
    told: int = 0
    end: End | None = None

    def news(self) -> Iterator[Segment]:
        """Yields the segments that are known up to the first that is not, each once."""
        while self.told < len(self.slots):
            segment = self.slots[self.told]
            if segment is None:
                return
            self.told += 1
            if segment.text or segment.suppressed:
                yield segment

    def transcript(self) -> Transcript | None:
        """Returns the whole, once it is known."""
        if self.end is None or self.told < len(self.slots):
            return None
        name, end = self.job.name, self.end
        if end.error is not None:
            return Transcript(name, duration=end.duration, error=end.error)
        segments = tuple(s for s in self.slots if s and (s.text or s.suppressed))
        text = " ".join(segment.text for segment in segments if segment.text)
        return Transcript(name, text, segments, end.duration)


@dataclass
class _Waiting:
    clip: Clip
    recording: _Recording
    slot: int
    number: int  # of all clips


@dataclass
class Usage:
    """What the model was given, and what that took; all but the number in seconds.

    Attributes:
        clips: how many there were.
        heard: their sound.
        computed: the same with the padding of rows and batches.
        busy: the time of recognising them.
    """

    clips: int = 0
    heard: float = 0.0
    computed: float = 0.0
    busy: float = 0.0

    @property
    def padding(self) -> float:
        """Returns the share of what was computed that was padding."""
        return 1 - self.heard / self.computed if self.computed else 0.0


@dataclass
class Transcriber:
    """Transcribes recordings; clips of several share batches.

    Attributes:
        listening: how they become clips.
        recognise: from a batch of features to texts.
        batch_size: most clips of one batch; halved when memory does not suffice.
        thresholds: beyond which a text is not believed.
        workers: processes that decode sound; with 0 this one does.
        row_multiple: clips of a batch are a multiple of this: of the devices that share it.
        least_rows: clips are repeated until a batch has as many: what is compiled already.
        usage: of the model so far.
    """

    listening: Listening
    recognise: Recognise
    batch_size: int = 8
    thresholds: Thresholds = field(default_factory=Thresholds)
    workers: int = 0
    row_multiple: int = 1
    least_rows: int = 1
    usage: Usage = field(default_factory=Usage)
    lazy: ClassVar[bool] = True
    """Whether recordings are taken as they are needed."""

    def stream(self, sources: Iterable[Any]) -> Iterator[Transcript]:
        """Yields a transcript for each source, in order, as soon as it is known.

        A recording that cannot be read has an error and stops nothing.

        Args:
            sources: files, bytes, arrays with their rate, or jobs; taken as they are needed.
        """
        for event in self.follow(sources):
            if isinstance(event, Transcript):
                yield event

    def follow(self, sources: Iterable[Any]) -> Iterator[Segment | Transcript]:
        """Yields the segments of each source as they become known, then its transcript."""
        jobs = (as_job(source, position) for position, source in enumerate(sources))
        recordings: deque[_Recording] = deque()
        lots: dict[tuple[int, ...], deque[_Waiting]] = {}
        ahead = 2 * self.batch_size
        for job, event in read(jobs, self.listening, self.workers, ahead):
            if not recordings or recordings[-1].end is not None:
                recordings.append(_Recording(job))
            if isinstance(event, End):
                recordings[-1].end = event
            else:
                self._take(event, recordings[-1], lots)
            yield from _told(recordings)
        for lot in sorted(lots):
            while lots[lot]:
                self._recognise(lots[lot])
        yield from _told(recordings)

    def _take(
        self, clip: Clip, recording: _Recording, lots: dict[tuple[int, ...], deque[_Waiting]]
    ) -> None:
        """Lets a clip wait for others of its shape until they fill a batch, or too many wait."""
        lot = lots.setdefault(clip.values.shape, deque())
        lot.append(_Waiting(clip, recording, len(recording.slots), self.usage.clips))
        recording.slots.append(None)
        self.usage.clips += 1
        if len(lot) >= self.batch_size:
            self._recognise(lot)
        # The oldest clip holds up the results of all recordings behind its own.
        oldest = min(filter(None, lots.values()), key=lambda lot: lot[0].number, default=None)
        if oldest and self.usage.clips - oldest[0].number > WINDOW * self.batch_size:
            self._recognise(oldest)

    def _recognise(self, lot: deque[_Waiting]) -> None:
        """Recognises the first batch of a lot and puts its texts where they belong."""
        batch = [lot.popleft() for _ in range(min(self.batch_size, len(lot)))]
        for waiting, found in zip(batch, self._found([w.clip for w in batch]), strict=True):
            start, end = waiting.clip.start, waiting.clip.end
            waiting.recording.slots[waiting.slot] = judge(start, end, found, self.thresholds)

    def _found(self, clips: Sequence[Clip]) -> Sequence[Hypothesis]:
        """Recognises clips of one shape, in halves if they do not fit into the memory."""
        rows = max(self.least_rows, self.rows(len(clips)))
        filled = [*clips, *[clips[0]] * (rows - len(clips))]
        values, mask = (np.stack([getattr(c, name) for c in filled]) for name in ("values", "mask"))
        started = time.perf_counter()
        try:
            found = self.recognise(values, mask, clips[0].padded)[: len(clips)]
            self.usage.heard += sum(clip.end - clip.start for clip in clips)
            self.usage.computed += rows * clips[0].padded
            return found
        except RuntimeError as error:
            if not out_of_memory(error) or len(clips) == 1:
                raise
        finally:
            self.usage.busy += time.perf_counter() - started
        _LOGGER.warning(self.halve(len(clips)))
        return [h for half in _halves(clips) for h in self._found(half)]

    def rows(self, clips: int) -> int:
        """Returns the rows of a batch of so many clips: few numbers of them are compiled."""
        rows = self.row_multiple
        while rows < clips:
            rows *= 2
        return rows

    def halve(self, rows: int) -> str:
        """Makes batches half as large as one that does not fit into the memory, and says so."""
        self.batch_size, self.least_rows = rows // 2, 1
        return f"not enough memory for batches of {rows}: going on with {rows // 2}"


def _halves(clips: Sequence[Clip]) -> tuple[Sequence[Clip], Sequence[Clip]]:
    middle = len(clips) // 2
    return clips[:middle], clips[middle:]


def _told(recordings: deque[_Recording]) -> Iterator[Segment | Transcript]:
    """Yields what is known of the first recordings, and lets go of those that are done."""
    while recordings:
        yield from recordings[0].news()
        transcript = recordings[0].transcript()
        if transcript is None:
            return
        recordings.popleft()
        yield transcript
