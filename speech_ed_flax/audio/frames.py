"""Frames of features, as many as a clip has: what the extractors of log-mel frames share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.audio.clips import mono, padded_length


@dataclasses.dataclass(frozen=True)
class FrameFeatures:
    """Features ``[batch, frames, width]`` of clips of any length; each kind defines ``extract``.

    A clip's features are computed from its own samples, and padded afterwards: it gives the same
    values alone and in any batch.
    """

    kind: ClassVar[str]
    fixed: ClassVar[Mapping[str, Any]]
    axes: ClassVar[tuple[str, ...]] = ("frames", "mels")
    fixed_samples: ClassVar[None] = None
    """Clips are of any length."""

    sampling_rate: int = 16_000

    @property
    def width(self) -> int:
        """Numbers in a frame."""
        raise TypeError(f"{type(self).__name__} must define width.")

    @property
    def padding(self) -> float:
        """Value of the padding."""
        return 0.0

    def extract(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[frames, width]`` of ``[samples]``, of which there are enough for a frame.

        There may be more frames than are real; those are part of the padding.
        """
        raise TypeError(f"{type(self).__name__} must define extract.")

    def positions(self, samples: Any) -> Any:
        """Returns the real frames of clips of so many samples, integers of any shape."""
        raise TypeError(f"{type(self).__name__} must define positions.")

    def padded(self, samples: int) -> int:
        """Returns the frames of a batch that is padded to so many samples."""
        return int(self.positions(samples))

    def features(
        self, clips: Sequence[np.ndarray], pad_to: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 values ``[batch, frames, width]`` and mask ``[batch, frames]``.

        Args:
            clips: Mono float ``[samples]`` each, at ``sampling_rate``; one that is too short for a
                frame has none that is real.
            pad_to: Samples whose frames the result has room for; those of the longest clip if
                omitted.

        Raises:
            AudioError: A clip is not one-dimensional, or is longer than ``pad_to``.
        """
        clips = mono(clips)
        frames = self.padded(padded_length(clips, pad_to))
        values = np.full((len(clips), frames, self.width), self.padding, np.float32)
        real = self.positions(np.array([len(clip) for clip in clips], np.int64))
        for row, clip, count in zip(values, clips, real, strict=True):
            if count:
                found = self.extract(clip)
                row[: len(found)] = found
        return values, np.arange(frames)[None, :] < real[:, None]

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return {
            "feature_extractor_type": self.kind,
            **self.fixed,
            **dataclasses.asdict(self),
        }


def standardise(frames: np.ndarray, epsilon: float, deviation_epsilon: float = 0.0) -> np.ndarray:
    """Returns frames ``[frames, mels]`` with zero mean and unit variance of each band.

    Args:
        frames: at least one.
        epsilon: added to the (unbiased) variance.
        deviation_epsilon: added to its root.
    """
    centred = frames - frames.mean(axis=0)
    variance = (centred**2).sum(axis=0) / max(len(frames) - 1, 1)
    return centred / (np.sqrt(variance + epsilon) + deviation_epsilon)
