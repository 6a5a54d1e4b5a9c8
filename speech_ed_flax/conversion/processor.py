"""What stands before and after the model: feature settings and tokenizer."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from speech_ed_flax.audio.features import (
    Features,
    LogMelFeatures,
    WaveformFeatures,
    from_hf,
)
from speech_ed_flax.conversion.json_object import read_json
from speech_ed_flax.conversion.save import write_json
from speech_ed_flax.errors import CheckpointError, ConfigError

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
_PROCESSORS = {
    "Wav2Vec2FeatureExtractor": "Wav2Vec2Processor",
    "WhisperFeatureExtractor": "WhisperProcessor",
}


@dataclass(frozen=True)
class Processor:
    """Turns sound into features and tokens into text.

    Attributes:
        features: of the encoder; None if its checkpoint does not say.
        tokenizer: of the decoder, from transformers; None if there is none.
    """

    features: Features | None = None
    tokenizer: Any | None = None

    @classmethod
    def load(cls, encoder: Path, decoder: Path) -> "Processor":
        """Reads the features of one checkpoint folder and the tokenizer of another, or the same.

        Raises:
            CheckpointError: if a file is there and cannot be used.
        """
        return cls(load_features(encoder), load_tokenizer(decoder))

    def save(self, folder: Path) -> None:
        """Writes what transformers' ``AutoProcessor`` and its parts load."""
        if self.features is not None:
            fields = self.features.to_hf()
            name = _PROCESSORS[fields["feature_extractor_type"]]
            write_json(folder / "preprocessor_config.json", fields | {"processor_class": name})
            nested = {"feature_extractor": fields, "processor_class": name}
            write_json(folder / "processor_config.json", nested)
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(folder)

    def text(self, tokens: Any) -> list[str]:
        """Turns token ids ``[rows, length]`` into text, without special tokens.

        Raises:
            ConfigError: if there is no tokenizer.
        """
        if self.tokenizer is None:
            raise ConfigError("the checkpoint has no tokenizer: add tokenizer.json to its folder.")
        return self.tokenizer.batch_decode(tokens, skip_special_tokens=True)


def fit_features(features: Features | None, encoder: Any) -> Features:
    """Returns features of the shape that an encoder hears.

    Args:
        features: of its checkpoint; None for those of a new encoder.
        encoder: its frozen config.

    Raises:
        ConfigError: if a spectrogram of its length is no whole number of seconds.
    """
    if len(encoder.input_shape) == 1:
        # Encoders with a group norm were trained without a mask, the others with one.
        masked = encoder.front.norm == "layer"
        return features or WaveformFeatures(return_attention_mask=masked)
    mels, frames = encoder.input_shape
    features = features or LogMelFeatures()
    if not isinstance(features, LogMelFeatures):
        raise ConfigError("the encoder hears spectrograms, its feature settings give waveforms.")
    seconds, rest = divmod(frames * features.hop_length, features.sampling_rate)
    if rest:
        raise ConfigError(
            f"the encoder hears {frames} frames, which are no whole number of seconds: choose a "
            f"multiple of {features.sampling_rate // features.hop_length}."
        )
    return replace(features, feature_size=mels, chunk_length=seconds)


def load_features(folder: Path) -> Features | None:
    """Reads the feature settings of a checkpoint; None if it has none.

    Raises:
        CheckpointError: if a file is there and cannot be used.
    """
    for name in ("preprocessor_config.json", "processor_config.json"):
        path = folder / name
        if not path.exists():
            continue
        fields = read_json(path)
        fields = fields.get("feature_extractor", fields)
        if "feature_extractor_type" not in fields and "sampling_rate" not in fields:
            continue
        try:
            return from_hf(fields)
        except ConfigError as error:
            raise CheckpointError(f"{path}: {error}") from None
    return None


def load_tokenizer(folder: Path) -> Any | None:
    """Reads the tokenizer in a folder; None if there is none.

    Raises:
        CheckpointError: if a file is there and cannot be used.
    """
    if not any((folder / name).exists() for name in _TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers and transformers raise what the damage causes
        reason = str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({reason})") from error
