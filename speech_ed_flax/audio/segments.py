"""Cuts long recordings where they are quiet."""

import numpy as np

from speech_ed_flax.errors import AudioError

_FRAMES_PER_SECOND = 50  # a cut falls between two frames of 20 ms
_NEIGHBOURS = 5  # frames heard on each side of a cut: a pause of 0.2 s beats a short closure


def split_at_quiet(
    samples: np.ndarray, rate: int, longest: float | int = 30.0, search: float | int = 10.0
) -> list[tuple[int, int]]:
    """Returns spans ``[start, end)`` that cover a recording in order, each short enough.

    Each cut is made at the quietest place of the last ``search`` seconds that a span may reach, and
    at the latest one where several are equally quiet. What is short enough already is one span, an
    empty recording too.

    Args:
        samples: ``[samples]``.
        rate: Samples per second.
        longest: Most seconds in a span.
        search: Seconds before that limit in which a cut is sought.

    Raises:
        AudioError: ``longest`` is less than one sample.
    """
    limit = int(longest * rate)
    if limit < 1:
        raise AudioError(f"longest: spans of {longest} s hold no sample at {rate} Hz (raise it)")
    hop = max(1, rate // _FRAMES_PER_SECOND)
    loudness = _loudness_at_boundaries(samples, hop)
    spans, start = [], 0
    while len(samples) - start > limit:
        first = max(start, start + limit - int(search * rate)) // hop + 1
        last = (start + limit) // hop
        cut = start + limit
        if first <= last:
            # Reversed, because argmin returns the first of equals.
            cut = (last - int(np.argmin(loudness[first : last + 1][::-1]))) * hop
        spans.append((start, cut))
        start = cut
    return [*spans, (start, len(samples))]


def _loudness_at_boundaries(samples: np.ndarray, hop: int) -> np.ndarray:
    """Returns the energy around the start of every frame of ``hop`` samples, ``[frames + 1]``."""
    frames = samples[: len(samples) // hop * hop].reshape(-1, hop)
    energy = np.einsum("fs,fs->f", frames, frames, dtype=np.float64, casting="same_kind")
    padded = np.pad(energy, _NEIGHBOURS, mode="edge" if len(energy) else "constant")
    total = np.concatenate([[0.0], np.cumsum(padded)])
    return total[2 * _NEIGHBOURS :] - total[: -2 * _NEIGHBOURS]
