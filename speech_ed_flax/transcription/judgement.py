"""Whether a recognised text is to be believed."""

import zlib
from dataclasses import dataclass

from speech_ed_flax.transcription.transcript import Alternative, Segment, Word

_FASTEST = 40.0
"""Bytes of text in a second of speech: people say 20 letters, which may be two bytes each."""


@dataclass(frozen=True)
class Hypothesis:
    """What a recogniser wrote for one clip; times of words in seconds of the clip."""

    text: str
    avg_log_prob: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Thresholds:
    """Beyond which a text is suppressed; None for never.

    Attributes:
        log_prob: of the mean log-probability of a token, at least: a probability of one in seven.
        compression_ratio: bytes of the text over those that zlib needs, at most, where the text is
            also longer than anybody speaks: people do say a sentence three times over (2.4, which
            is Whisper's limit), but a model that is caught in a loop writes to the end of its room.
    """

    log_prob: float | None = -2.0
    compression_ratio: float | None = 2.4


def judge(start: float, end: float, found: Hypothesis, thresholds: Thresholds) -> Segment:
    """Returns the segment of a clip, without its text if that is not to be believed.

    Args:
        start: of the clip, seconds of its recording.
        end: of it.
        found: what was recognised.
        thresholds: beyond which it is not believed.
    """
    ratio, pace = compression_ratio(found.text), len(found.text.encode()) / (end - start)
    reason = None
    if pace > _FASTEST and _is_beyond(thresholds.compression_ratio, ratio):
        reason = "repetition"
    elif found.avg_log_prob is not None and _is_beyond(found.avg_log_prob, thresholds.log_prob):
        reason = "low probability"
    believed = reason is None
    words = (Word(start + w.start, start + w.end, w.text) for w in found.words if believed)
    return Segment(
        start,
        end,
        found.text if believed else "",
        found.avg_log_prob,
        ratio,
        reason,
        None if believed else found.text,
        found.alternatives,
        tuple(words),
    )


def _is_beyond(limit: float | None, value: float | None) -> bool:
    return limit is not None and value is not None and value > limit


def compression_ratio(text: str) -> float:
    """Returns the bytes of a text over those that zlib makes of it."""
    content = text.encode("utf-8", "backslashreplace")
    return len(content) / len(zlib.compress(content))
