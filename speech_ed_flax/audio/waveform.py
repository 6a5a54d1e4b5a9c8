"""Samples themselves, as wav2vec 2.0 and its kin hear them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.audio.clips import heard, mono, padded_length


@dataclasses.dataclass(frozen=True)
class WaveformFeatures:
    """Samples of a batch of clips (``Wav2Vec2FeatureExtractor``).

    With ``do_normalize`` every clip gets zero mean and unit variance over its own samples, so that
    it gives the same values alone and in any batch. transformers agrees, but for one case: batches
    with ``return_attention_mask=False``, where it counts padding into the mean and the variance.
    """

    kind: ClassVar[str] = "Wav2Vec2FeatureExtractor"
    fixed: ClassVar[Mapping[str, Any]] = {"feature_size": 1, "padding_side": "right"}
    axes: ClassVar[tuple[str, ...]] = ("samples",)
    fixed_samples: ClassVar[None] = None
    """Clips are of any length."""

    sampling_rate: int = 16_000
    do_normalize: bool = True
    return_attention_mask: bool = False
    """Whether the encoder was trained with a mask; ``features`` returns the mask in either case."""
    padding_value: float = 0.0

    def shaped(self, shape: tuple[int, ...]) -> "WaveformFeatures":
        """Returns these features for an encoder of that ``input_shape``: the same."""
        del shape
        return self

    def positions(self, samples: Any) -> Any:
        """Returns how much of the mask is real for clips of so many samples, of any shape."""
        return samples

    def features(
        self, clips: Sequence[np.ndarray], pad_to: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 values ``[batch, samples]`` and mask ``[batch, samples]``.

        Args:
            clips: Mono float ``[samples]`` each, at ``sampling_rate``; may be empty.
            pad_to: Samples in the result; the longest clip if omitted.

        Raises:
            AudioError: A clip is not one-dimensional, or is longer than ``pad_to``.
        """
        clips = mono(clips)
        width = padded_length(clips, pad_to)
        values = np.full((len(clips), width), self.padding_value, np.float32)
        for row, clip in zip(values, clips, strict=True):
            row[: len(clip)] = _standardise(clip) if self.do_normalize and len(clip) else clip
        return values, heard(clips, np.arange(width))

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return {
            "feature_extractor_type": self.kind,
            **self.fixed,
            **dataclasses.asdict(self),
        }


@dataclasses.dataclass(frozen=True)
class SpeechT5Features(WaveformFeatures):
    """Samples as SpeechT5 hears them (``SpeechT5FeatureExtractor``).

    Its settings of spectrograms are for speech that a model is to say: they are not read.
    """

    kind: ClassVar[str] = "SpeechT5FeatureExtractor"

    do_normalize: bool = False
    return_attention_mask: bool = True


def _standardise(clip: np.ndarray) -> np.ndarray:
    return (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)
