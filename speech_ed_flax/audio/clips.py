"""A batch of clips, as every extractor of features takes it."""

from collections.abc import Sequence

import numpy as np

from speech_ed_flax.errors import AudioError


def mono(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the clips as float32.

    Raises:
        AudioError: one is not one-dimensional; the message has its number.
    """
    clips = [np.asarray(clip, np.float32) for clip in clips]
    for index, clip in enumerate(clips):
        if clip.ndim != 1:
            raise AudioError(f"clip {index}: shape {clip.shape} (mix it down to [samples] first)")
    return clips


def padded_length(clips: Sequence[np.ndarray], pad_to: int | None) -> int:
    """Returns the samples that clips are padded to: ``pad_to``, or the longest one's.

    Raises:
        AudioError: the longest one is longer than ``pad_to``.
    """
    longest = max(map(len, clips), default=0)
    if pad_to is not None and longest > pad_to:
        raise AudioError(f"pad_to: {pad_to} samples, the longest clip has {longest} (raise it)")
    return longest if pad_to is None else pad_to


def heard(clips: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """Returns ``[batch, positions]``: whether the sample at which a position starts is a clip's."""
    lengths = np.array([len(clip) for clip in clips], np.int64)
    return starts[None, :] < lengths[:, None]
