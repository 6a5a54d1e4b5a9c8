"""Log-mel spectrograms of one length, as Whisper hears them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from speech_ed_flax.audio.clips import heard, mono
from speech_ed_flax.audio.mel import log_mel, overlapping, power, slaney_filters
from speech_ed_flax.errors import AudioError, ConfigError


@dataclasses.dataclass(frozen=True)
class LogMelFeatures:
    """Log-mel spectrograms of a batch of clips (``WhisperFeatureExtractor``).

    Silence is the value -1.5, in padding too; an empty clip is all silence.
    """

    kind: ClassVar[str] = "WhisperFeatureExtractor"
    fixed: ClassVar[Mapping[str, Any]] = {
        "padding_side": "right",
        "padding_value": 0.0,
        "dither": 0.0,
    }
    axes: ClassVar[tuple[str, ...]] = ("mels", "frames")

    feature_size: int = 80
    """Mel bands, up to 8 kHz."""
    sampling_rate: int = 16_000
    hop_length: int = 160
    chunk_length: int = 30
    """Seconds that every clip is padded or cut to."""
    n_fft: int = 400
    return_attention_mask: bool = False

    @property
    def fixed_samples(self) -> int:
        """Samples that every clip is padded or cut to."""
        return self.chunk_length * self.sampling_rate

    def shaped(self, shape: tuple[int, ...]) -> "LogMelFeatures":
        """Returns these features for an encoder of that ``input_shape``, mel bands and frames.

        Raises:
            ConfigError: the frames are no whole number of seconds.
        """
        mels, frames = shape
        seconds, rest = divmod(frames * self.hop_length, self.sampling_rate)
        if rest:
            raise ConfigError(
                f"the encoder hears {frames} frames, which are no whole number of seconds: choose "
                f"a multiple of {self.sampling_rate // self.hop_length}."
            )
        return dataclasses.replace(self, feature_size=mels, chunk_length=seconds)

    def positions(self, samples: Any) -> Any:
        """Returns how much of the mask is real for clips of so many samples, of any shape."""
        return -(-samples // self.hop_length)

    def features(
        self, clips: Sequence[np.ndarray], pad_to: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 values ``[batch, mels, frames]`` and mask ``[batch, frames]``.

        Args:
            clips: Mono float ``[samples]`` each, at ``sampling_rate``; may be empty.
            pad_to: Samples that clips are padded or cut to; ``fixed_samples`` if omitted.

        Raises:
            AudioError: A clip is not one-dimensional, or ``pad_to`` holds no frame.
        """
        width = self.fixed_samples if pad_to is None else pad_to
        if width < self.hop_length:
            raise AudioError(
                f"pad_to: {width} samples hold no frame of {self.hop_length} (raise it)"
            )
        clips = [clip[:width] for clip in mono(clips)]
        frames = width // self.hop_length
        values = np.empty((len(clips), self.feature_size, frames), np.float32)
        for row, clip in zip(values, clips, strict=True):
            row[:] = self._extract(np.pad(clip, (0, width - len(clip)))).T
        return values, heard(clips, np.arange(frames) * self.hop_length)

    def _extract(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[frames, mels]`` of ``[samples]``, computed in float64.

        Frame ``i`` is centred on sample ``i * hop_length``, the clip being mirrored at its ends.
        Bands more than 80 dB below the loudest one are raised to that level.
        """
        around = np.pad(clip.astype(np.float64), self.n_fft // 2, mode="reflect")
        frames = overlapping(around, self.n_fft, self.hop_length)
        frames = frames[: len(clip) // self.hop_length]  # transformers leaves the last frame out
        window = np.hanning(self.n_fft + 1)[:-1]  # the periodic window
        # Up to 8 kHz whatever the rate.
        filters = slaney_filters(self.feature_size, self.n_fft, self.sampling_rate, 8_000.0)
        mel = log_mel(power(frames * window, self.n_fft), filters, np.log10, 1e-10)
        return (np.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return {
            "feature_extractor_type": self.kind,
            **self.fixed,
            **dataclasses.asdict(self),
            "n_samples": self.fixed_samples,
            "nb_max_frames": self.fixed_samples // self.hop_length,
        }
