"""Log-mel frames with pre-emphasis, as NeMo's encoders hear them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.audio.frames import FrameFeatures, standardise
from speech_ed_flax.audio.mel import overlapping, power, slaney_filters

_GUARD = 2.0**-24  # added before the logarithm
_EPSILON = 1e-5  # added to the deviation


@dataclasses.dataclass(frozen=True)
class ParakeetFeatures(FrameFeatures):
    """Log-mel frames normalised over each clip (``ParakeetFeatureExtractor``).

    Frame ``i`` is centred on sample ``i * hop_length``, beyond the clip is silence. The frame at a
    clip's end is computed, and does not count as real. transformers computes in float32.
    """

    kind: ClassVar[str] = "ParakeetFeatureExtractor"
    fixed: ClassVar[Mapping[str, Any]] = {"padding_side": "right", "padding_value": 0.0}

    feature_size: int = 80
    """Mel bands, up to half the rate."""
    hop_length: int = 160
    n_fft: int = 512
    win_length: int = 400
    preemphasis: float = 0.97
    """How much of the sample before is subtracted from each sample."""

    @property
    def width(self) -> int:
        """Numbers in a frame."""
        return self.feature_size

    def shaped(self, shape: tuple[int, ...]) -> "ParakeetFeatures":
        """Returns these features for an encoder of that ``input_shape``, frames and mel bands."""
        return dataclasses.replace(self, feature_size=shape[-1])

    def positions(self, samples: Any) -> Any:
        """Returns the real frames of clips of so many samples, integers of any shape."""
        return samples // self.hop_length

    def padded(self, samples: int) -> int:
        """Returns the frames of a batch that is padded to so many samples."""
        return samples // self.hop_length + 1

    def extract(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[frames, mels]`` of ``[samples]``."""
        clip = clip.astype(np.float64)
        clip[1:] -= self.preemphasis * clip[:-1]
        frames = overlapping(np.pad(clip, self.n_fft // 2), self.n_fft, self.hop_length)
        beside = (self.n_fft - self.win_length) // 2
        window = np.hanning(self.win_length)
        window = np.pad(window, (beside, self.n_fft - self.win_length - beside))
        frames = frames[: self.positions(len(clip))] * window
        filters = slaney_filters(
            self.feature_size, self.n_fft, self.sampling_rate, self.sampling_rate / 2
        )
        mel = np.log(power(frames, self.n_fft) @ filters.T + _GUARD)
        return standardise(mel, 0.0, _EPSILON)

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return super().to_hf() | {"return_attention_mask": True}
