"""What stands before and after the model: feature settings and tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from speech_ed_flax.audio.features import Features, from_hf
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
    "ParakeetFeatureExtractor": "ParakeetProcessor",
    "SeamlessM4TFeatureExtractor": "Wav2Vec2BertProcessor",
    "Speech2TextFeatureExtractor": "Speech2TextProcessor",
    "SpeechT5FeatureExtractor": "Wav2Vec2Processor",  # SpeechT5's own asks which way it is to turn
    "Wav2Vec2FeatureExtractor": "Wav2Vec2Processor",
    "WhisperFeatureExtractor": "WhisperProcessor",
}
"""transformers' class that joins features to any tokenizer, by the type of the features."""


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
        return self.writer.batch_decode(tokens, skip_special_tokens=True)

    @property
    def hearer(self) -> Features:
        """Returns the features.

        Raises:
            ConfigError: if the checkpoint does not say.
        """
        if self.features is None:
            raise ConfigError(
                "the checkpoint does not say how its encoder hears: add preprocessor_config.json."
            )
        return self.features

    @property
    def writer(self) -> Any:
        """Returns the tokenizer.

        Raises:
            ConfigError: if there is none.
        """
        if self.tokenizer is None:
            raise ConfigError("the checkpoint has no tokenizer: add tokenizer.json to its folder.")
        return self.tokenizer


def fit_features(features: Features | None, encoder: Any) -> Features:
    """Returns features of the shape that an encoder hears.

    Args:
        features: of its checkpoint; None for those of a new encoder.
        encoder: its frozen config.

    Raises:
        ConfigError: if they are of another kind, or a spectrogram of the encoder's one length is no
            whole number of seconds.
    """
    usual: Features = encoder.features
    chosen = usual if features is None else features
    if chosen.axes != usual.axes:
        heard, given = (", ".join(("batch", *f.axes)) for f in (usual, chosen))
        raise ConfigError(f"the encoder hears [{heard}], its feature settings give [{given}].")
    return chosen.shaped(encoder.input_shape)


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
