"""What encoders hear: waveforms or frames of log-mel features of a batch of clips, by their JSON.

Every class computes what the feature extractor of the same configuration computes in transformers,
in numpy alone, and is read from and written to its JSON.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from speech_ed_flax.audio.filter_bank import FilterBankFeatures, StackedFeatures
from speech_ed_flax.audio.log_mel import LogMelFeatures
from speech_ed_flax.audio.parakeet import ParakeetFeatures
from speech_ed_flax.audio.waveform import SpeechT5Features, WaveformFeatures
from speech_ed_flax.errors import ConfigError

Features = (
    WaveformFeatures
    | SpeechT5Features
    | LogMelFeatures
    | FilterBankFeatures
    | StackedFeatures
    | ParakeetFeatures
)

FEATURES: dict[str, type[Features]] = {
    features.kind: features
    for features in (
        WaveformFeatures,
        SpeechT5Features,
        LogMelFeatures,
        FilterBankFeatures,
        StackedFeatures,
        ParakeetFeatures,
    )
}
"""Our class for each ``feature_extractor_type``. Its fields are read; others that transformers
reads may have one value only, that of the class's ``fixed``."""


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
        kind = WaveformFeatures.kind
    if kind not in FEATURES:
        raise ConfigError(
            f"feature_extractor_type: {kind!r} is not supported (use one of {', '.join(FEATURES)})"
        )
    features = FEATURES[kind]
    for name, value in features.fixed.items():
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
