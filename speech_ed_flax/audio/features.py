"""What encoders hear: normalised waveforms, or log-mel spectrograms, of a batch of clips.

Both classes compute what the feature extractor of the same configuration computes in transformers,
in numpy alone, and are read from and written to its JSON.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from speech_ed_flax.errors import AudioError, ConfigError


@dataclasses.dataclass(frozen=True)
class WaveformFeatures:
    """Samples themselves, as wav2vec 2.0 and its kin hear them (``Wav2Vec2FeatureExtractor``).

    With ``do_normalize`` every clip gets zero mean and unit variance over its own samples, so that
    it gives the same values alone and in any batch. transformers agrees, but for one case: batches
    with ``return_attention_mask=False``, where it counts padding into the mean and the variance.
    """

    sampling_rate: int = 16_000
    do_normalize: bool = True
    return_attention_mask: bool = False
    """Whether the encoder was trained with a mask; ``features`` returns the mask in either case."""
    padding_value: float = 0.0

    @property
    def longest(self) -> float:
        """Seconds of the longest clip that is heard to its end: any."""
        return float("inf")

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
        clips = _mono(clips)
        longest = max(map(len, clips), default=0)
        if pad_to is not None and longest > pad_to:
            raise AudioError(f"pad_to: {pad_to} samples, the longest clip has {longest} (raise it)")
        width = longest if pad_to is None else pad_to
        values = np.full((len(clips), width), self.padding_value, np.float32)
        for row, clip in zip(values, clips, strict=True):
            row[: len(clip)] = _standardise(clip) if self.do_normalize and len(clip) else clip
        return values, _mask(clips, np.arange(width))

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        return {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "padding_side": "right",
            **dataclasses.asdict(self),
        }


@dataclasses.dataclass(frozen=True)
class LogMelFeatures:
    """Log-mel spectrograms, as Whisper hears them (``WhisperFeatureExtractor``).

    Silence is the value -1.5, in padding too; an empty clip is all silence.
    """

    feature_size: int = 80
    """Mel bands, up to 8 kHz."""
    sampling_rate: int = 16_000
    hop_length: int = 160
    chunk_length: int = 30
    """Seconds that every clip is padded or cut to."""
    n_fft: int = 400
    return_attention_mask: bool = False

    @property
    def longest(self) -> float:
        """Seconds of the longest clip that is heard to its end."""
        return float(self.chunk_length)

    def features(
        self, clips: Sequence[np.ndarray], pad_to: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns float32 values ``[batch, mels, frames]`` and mask ``[batch, frames]``.

        Args:
            clips: Mono float ``[samples]`` each, at ``sampling_rate``; may be empty.
            pad_to: Samples that clips are padded or cut to; ``chunk_length`` seconds if omitted.

        Raises:
            AudioError: A clip is not one-dimensional, or ``pad_to`` holds no frame.
        """
        width = self.chunk_length * self.sampling_rate if pad_to is None else pad_to
        if width < self.hop_length:
            raise AudioError(
                f"pad_to: {width} samples hold no frame of {self.hop_length} (raise it)"
            )
        clips = [clip[:width] for clip in _mono(clips)]
        frames = width // self.hop_length
        values = np.empty((len(clips), self.feature_size, frames), np.float32)
        for row, clip in zip(values, clips, strict=True):
            row[:] = self._log_mel(np.pad(clip, (0, width - len(clip))))
        return values, _mask(clips, np.arange(frames) * self.hop_length)

    def _log_mel(self, clip: np.ndarray) -> np.ndarray:
        """Returns ``[mels, frames]`` of ``[samples]``, computed in float64.

        Frame ``i`` is centred on sample ``i * hop_length``, the clip being mirrored at its ends.
        Bands more than 80 dB below the loudest one are raised to that level.
        """
        around = np.pad(clip.astype(np.float64), self.n_fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(around, self.n_fft)[:: self.hop_length]
        frames = frames[: len(clip) // self.hop_length]  # transformers leaves the last frame out
        window = np.hanning(self.n_fft + 1)[:-1]  # the periodic window
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        bank = _mel_filters(self.feature_size, self.n_fft, self.sampling_rate)
        log_mel = np.log10(np.maximum(bank @ power.T, 1e-10))
        return (np.maximum(log_mel, log_mel.max() - 8.0) + 4.0) / 4.0

    def to_hf(self) -> dict[str, Any]:
        """Returns the JSON fields that ``AutoFeatureExtractor`` loads."""
        samples = self.chunk_length * self.sampling_rate
        return {
            "feature_extractor_type": "WhisperFeatureExtractor",
            **dataclasses.asdict(self),
            "n_samples": samples,
            "nb_max_frames": samples // self.hop_length,
            "padding_side": "right",
            "padding_value": 0.0,
            "dither": 0.0,
        }


Features = WaveformFeatures | LogMelFeatures

_CLASSES = {
    "Wav2Vec2FeatureExtractor": (WaveformFeatures, {"feature_size": 1, "padding_side": "right"}),
    "WhisperFeatureExtractor": (
        LogMelFeatures,
        {"padding_side": "right", "padding_value": 0.0, "dither": 0.0},
    ),
}
"""Our class for each ``feature_extractor_type``, and the only value that other fields may have."""


def from_hf(fields: Mapping[str, Any]) -> Features:
    """Returns the features that the JSON of a transformers feature extractor describes.

    Fields that transformers does not read when it extracts features are ignored here too.

    Raises:
        ConfigError: The type is unknown, or a field asks for another computation than ours.
    """
    kind = fields.get("feature_extractor_type")
    if kind is None and fields.get("feature_size") == 1:
        # The first wav2vec 2.0 checkpoints were saved before the type was, and no others then had
        # a feature size of 1.
        kind = "Wav2Vec2FeatureExtractor"
    if kind not in _CLASSES:
        raise ConfigError(
            f"feature_extractor_type: {kind!r} is not supported (use one of {', '.join(_CLASSES)})"
        )
    features, fixed = _CLASSES[kind]
    for name, value in fixed.items():
        if fields.get(name, value) != value:
            raise ConfigError(
                f"{name}: {fields[name]!r} is not supported by {kind} (use {value!r})"
            )
    known: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(features)}
    chosen = {name: fields[name] for name in known if name in fields}
    for name, value in chosen.items():
        _require_like(name, value, known[name])
    return features(**chosen)


def _require_like(name: str, value: Any, default: bool | int | float) -> None:
    """Raises unless ``value`` has the type of ``default``; integers must be positive."""
    if isinstance(default, bool):
        expected, valid = "true or false", isinstance(value, bool)
    elif isinstance(default, int):
        expected, valid = "a positive integer", type(value) is int and value > 0
    else:
        expected, valid = "a number", type(value) in (int, float)
    if not valid:
        raise ConfigError(f"{name}: {value!r} in the feature extractor (use {expected})")


def _mono(clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    clips = [np.asarray(clip, np.float32) for clip in clips]
    for index, clip in enumerate(clips):
        if clip.ndim != 1:
            raise AudioError(f"clip {index}: shape {clip.shape} (mix it down to [samples] first)")
    return clips


def _mask(clips: Sequence[np.ndarray], starts: np.ndarray) -> np.ndarray:
    """Returns ``[batch, positions]``: whether the sample at which a position starts is a clip's."""
    lengths = np.array([len(clip) for clip in clips], np.int64)
    return starts[None, :] < lengths[:, None]


def _standardise(clip: np.ndarray) -> np.ndarray:
    return (clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)


@cache
def _mel_filters(mels: int, n_fft: int, sampling_rate: int) -> np.ndarray:
    """Returns Slaney's triangular filters from 0 to 8 kHz, each of unit area, ``[mels, bins]``."""
    corners = _mel_to_hertz(np.linspace(0.0, _hertz_to_mel(8_000.0), mels + 2))
    bins = np.linspace(0.0, sampling_rate / 2, n_fft // 2 + 1)
    low, centre, high = (corners[at : at + mels, None] for at in range(3))
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling)) * 2.0 / (high - low)
    filters.flags.writeable = False  # shared by every caller
    return filters


# Slaney's mel scale (Auditory Toolbox, 1998): linear to 1 kHz at 15 mels, then 27 mels for each
# factor of 6.4 in frequency.
_KNEE_HERTZ, _KNEE_MELS = 1_000.0, 15.0
_MELS_PER_E = 27.0 / np.log(6.4)


def _hertz_to_mel(hertz: float) -> float:
    if hertz < _KNEE_HERTZ:
        return hertz * _KNEE_MELS / _KNEE_HERTZ
    return _KNEE_MELS + np.log(hertz / _KNEE_HERTZ) * _MELS_PER_E


def _mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    curved = _KNEE_HERTZ * np.exp((mels - _KNEE_MELS) / _MELS_PER_E)
    return np.where(mels < _KNEE_MELS, mels * _KNEE_HERTZ / _KNEE_MELS, curved)
