"""Kaldi's log-mel filter banks, as fairseq's speech-to-text and the w2v-BERT encoders hear them."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.audio.frames import FrameFeatures, standardise
from speech_ed_flax.audio.mel import kaldi_filters, log_mel, overlapping, power

_SIZE, _HOP, _FFT = 400, 160, 512  # samples, at any rate: transformers has no setting for them
_EMPHASIS = 0.97
_FLOOR = 1.192092955078125e-07
_FULL_SCALE = 2.0**15  # Kaldi's samples are 16-bit integers

_STILL = 1e-3
"""A band whose logarithm deviates less than this is the same throughout: the rest is rounding."""


def filter_bank(clip: np.ndarray, mels: int, sampling_rate: int) -> np.ndarray:
    """Returns the log-mel filter bank of a clip as Kaldi defines it, without dither.

    Of every frame the mean is subtracted, high frequencies are raised, and the ends are faded.

    Args:
        clip: ``[samples]`` within +-1.
        mels: bands from 20 Hz to half the rate.
        sampling_rate: samples per second.

    Returns:
        float64 ``[frames, mels]``.
    """
    frames = overlapping(clip.astype(np.float64) * _FULL_SCALE, _SIZE, _HOP)
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = np.hanning(_SIZE) ** 0.85  # Povey's
    frames = (frames - _EMPHASIS * before) * window
    return log_mel(power(frames, _FFT), kaldi_filters(mels, _FFT, sampling_rate), np.log, _FLOOR)


def _frames(samples: Any) -> Any:
    return np.maximum((samples - _SIZE) // _HOP + 1, 0)


@dataclasses.dataclass(frozen=True)
class FilterBankFeatures(FrameFeatures):
    """A filter bank normalised over each clip (``Speech2TextFeatureExtractor``, in numpy).

    With torchaudio transformers gives the same up to rounding. A band that is silent, or otherwise
    the same, throughout a clip gives zeros here, and NaN or magnified rounding there.
    """

    kind: ClassVar[str] = "Speech2TextFeatureExtractor"
    fixed: ClassVar[Mapping[str, Any]] = {"padding_side": "right", "dither": 0.0}

    num_mel_bins: int = 80
    padding_value: float = 0.0
    do_ceptral_normalize: bool = True
    """Whether each band is normalised over the clip, as the next two say."""
    normalize_means: bool = True
    normalize_vars: bool = True

    @property
    def width(self) -> int:
        """Numbers in a frame."""
        return self.num_mel_bins

    @property
    def padding(self) -> float:
        """Value of the padding."""
        return self.padding_value

    def shaped(self, shape: tuple[int, ...]) -> "FilterBankFeatures":
        """Returns these features for an encoder of that ``input_shape``, frames and mel bands."""
        return dataclasses.replace(self, num_mel_bins=shape[-1])

    def positions(self, samples: Any) -> Any:
        """Returns the frames of clips of so many samples, integers of any shape."""
        return _frames(samples)

    def extract(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[frames, mels]`` of ``[samples]``."""
        # transformers normalises in float32, which shows in the mean of many frames.
        frames = filter_bank(clip, self.num_mel_bins, self.sampling_rate).astype(np.float32)
        if not self.do_ceptral_normalize:
            return frames
        mean, deviation = frames.mean(axis=0), frames.std(axis=0)
        if self.normalize_means:
            frames = frames - mean
        if self.normalize_vars:
            frames = frames / np.where(deviation > _STILL, deviation, 1.0)
        return frames

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return super().to_hf() | {"feature_size": self.num_mel_bins, "return_attention_mask": True}


@dataclasses.dataclass(frozen=True)
class StackedFeatures(FrameFeatures):
    """A normalised filter bank, two frames in one (``SeamlessM4TFeatureExtractor``).

    Of an odd number of frames the last one is filled up with padding, and does not count as real.
    """

    kind: ClassVar[str] = "SeamlessM4TFeatureExtractor"
    fixed: ClassVar[Mapping[str, Any]] = {"padding_side": "right", "stride": 2}
    stride: ClassVar[int] = 2
    """Frames in one. transformers' mask is right for two only."""

    num_mel_bins: int = 80
    padding_value: float = 0.0
    return_attention_mask: bool = True
    """Whether the encoder was trained with a mask; ``features`` returns the mask in either case."""

    @property
    def width(self) -> int:
        """Numbers in a frame."""
        return self.stride * self.num_mel_bins

    @property
    def padding(self) -> float:
        """Value of the padding."""
        return self.padding_value

    def shaped(self, shape: tuple[int, ...]) -> "StackedFeatures":
        """Returns these features for an encoder of that ``input_shape``, frames and their width."""
        return dataclasses.replace(self, num_mel_bins=shape[-1] // self.stride)

    def positions(self, samples: Any) -> Any:
        """Returns the real frames of clips of so many samples, integers of any shape."""
        return _frames(samples) // self.stride

    def padded(self, samples: int) -> int:
        """Returns the frames of a batch that is padded to so many samples."""
        return int(-(-_frames(samples) // self.stride))

    def extract(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[frames, 2 mels]`` of ``[samples]``, the last one perhaps half padding."""
        frames = filter_bank(clip, self.num_mel_bins, self.sampling_rate)
        frames = standardise(frames, 1e-7)
        fill = ((0, len(frames) % self.stride), (0, 0))
        frames = np.pad(frames, fill, constant_values=self.padding_value)
        return frames.reshape(-1, self.width)

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return super().to_hf() | {"feature_size": self.num_mel_bins}
