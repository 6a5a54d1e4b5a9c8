"""What was heard in a recording."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Word:
    """A word and when it was said; times in seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Alternative:
    """What may have been said instead, and how likely a token of it is (mean log-probability)."""

    text: str
    avg_log_prob: float | None = None


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording and its text; times in seconds.

    Attributes:
        start: of the stretch.
        end: of it.
        text: empty if it is suppressed.
        avg_log_prob: mean log-probability of a token: near 0 where the model is sure of itself.
            Models that were trained with label smoothing are never quite.
        compression_ratio: bytes of the text over those that zlib needs; high where it repeats
            itself.
        suppressed: why the text is not believed; None if it is.
        heard: the text that is not believed.
        alternatives: what may have been said instead, the likeliest first.
        words: with their times, if they were asked for.
    """

    start: float
    end: float
    text: str
    avg_log_prob: float | None = None
    compression_ratio: float | None = None
    suppressed: str | None = None
    heard: str | None = None
    alternatives: tuple[Alternative, ...] = ()
    words: tuple[Word, ...] = ()


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

    def to_pipeline(self) -> dict[str, Any]:
        """Returns what transformers' speech recognition pipeline returns, with timestamps."""
        chunks = [
            {"timestamp": (part.start, part.end), "text": part.text}
            for segment in self.segments
            for part in (segment.words or (segment,))
            if part.text
        ]
        return {"text": self.text, "chunks": chunks}
