"""Configurations: read, cleaned, completed with token ids and generation settings."""

import copy
import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, AutoConfig, GenerationConfig, SpeechEncoderDecoderConfig

from speech_ed_flax.conversion import speech_to_text_2
from speech_ed_flax.conversion.json_object import read_json
from speech_ed_flax.errors import CheckpointError, ConfigError
from speech_ed_flax.model import family_of, unknown_type

speech_to_text_2.register()

TOKEN_IDS = ("pad_token_id", "decoder_start_token_id", "eos_token_id")

# What of a file must never steer code: where to fetch modules, which attention to run.
_STEERING = ("auto_map", "trust_remote_code", "custom_pipelines")


def read_config(folder: Path) -> Any:
    """Reads ``config.json`` of any supported checkpoint as a transformers config.

    Raises:
        CheckpointError: if it is missing, not a configuration or of an unknown model type.
    """
    path = folder / "config.json"
    raw = scrub(read_json(path))
    try:
        if raw.get("model_type") == "speech-encoder-decoder":
            _check_halves(raw)
            return SpeechEncoderDecoderConfig.from_dict(raw)
        _check_known(raw.get("model_type"))
        return AutoConfig.for_model(**{"model_type": "", **raw})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # strict dataclasses raise several kinds, all about the file
        reason = str(error).strip().splitlines()[0][:300]
        raise CheckpointError(f"{path}: it is not a valid configuration ({reason})") from error


def _check_halves(raw: dict[str, Any]) -> None:
    """Refuses what transformers fills in silently: a missing half becomes wav2vec2 or BERT."""
    for part in ("encoder", "decoder"):
        half = raw.get(part)
        if not isinstance(half, dict) or not isinstance(half.get("model_type"), str):
            raise CheckpointError(f"{part}.model_type is missing: name the {part}'s model type")
        _check_known(half["model_type"], part)


def _check_known(kind: Any, part: str | None = None) -> None:
    """Refuses a model type that transformers has not: it would answer with all that it has."""
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        raise CheckpointError(unknown_type(kind, part))


def scrub(raw: Any) -> Any:
    """Returns a JSON value without the keys by which a file could choose code to run."""
    if isinstance(raw, list):
        return [scrub(item) for item in raw]
    if not isinstance(raw, dict):
        return raw
    return {
        key: scrub(value)
        for key, value in raw.items()
        if key not in _STEERING and not key.startswith("_attn_implementation")
    }


def make_config(part: str, fields: Mapping[str, Any]) -> Any:
    """Makes the transformers config of one half.

    Args:
        part: "encoder" or "decoder", for messages.
        fields: of the config; ``model_type`` says of which kind it is.

    Raises:
        ConfigError: naming the field that is missing, unknown, not supported or of another type.
    """
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise ConfigError(f"{part}.model_type is missing: name a model type, or a checkpoint.")
    if kind not in CONFIG_MAPPING:
        raise ConfigError(unknown_type(kind, part))
    known = AutoConfig.for_model(kind)
    family_of(part, known)
    _check_fields(part, known, fields)
    try:
        return AutoConfig.for_model(**scrub(fields))
    except Exception as error:  # strict dataclasses raise several kinds, all about the fields
        raise ConfigError(f"{part}: {_reason(error)}") from None


def change_config(part: str, hf: Any, changes: Mapping[str, Any]) -> None:
    """Writes fields into the transformers config of one half; errors as in ``make_config``."""
    _check_fields(part, hf, changes)
    for name, value in changes.items():
        try:
            setattr(hf, name, value)
        except Exception as error:  # strict dataclasses raise several kinds, all about the field
            raise ConfigError(f"{part}_{name}: {_reason(error)}") from None


def _check_fields(part: str, hf: Any, names: Collection[str]) -> None:
    """Refuses unknown fields, and those of a decoder that transformers takes for the encoder's."""
    for name in names:
        if not hasattr(hf, name) and name not in TOKEN_IDS:
            close = difflib.get_close_matches(name, vars(hf), 1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(f"{part}_{name}: a {hf.model_type} config has no {name!r}{hint}.")
        meant = hf.attribute_map.get(name, name)
        right = meant.replace("encoder", "decoder")
        if part == "decoder" and name != meant != right and right not in names:
            raise ConfigError(
                f"decoder_{name}: in a {hf.model_type} config it is {meant}; name {right} instead."
            )


def _reason(error: Exception) -> str:
    """Returns the last line of what a strict dataclass says, where it names field and type."""
    return str(error).strip().splitlines()[-1].strip()[:300]


def join(encoder: Any, decoder: Any, **fields: Any) -> SpeechEncoderDecoderConfig:
    """Joins two transformers configs and, unlike upstream, leaves them as they are."""
    halves = {"encoder": encoder.to_dict(), "decoder": decoder.to_dict()}
    halves["encoder"] |= {"is_decoder": False, "add_cross_attention": False}
    halves["decoder"] |= {"is_decoder": True, "add_cross_attention": True}
    return SpeechEncoderDecoderConfig(**halves, **fields)


def resolve_generation(folder: Path | None, raw: dict[str, Any]) -> GenerationConfig:
    """Resolves the generation settings of a checkpoint as transformers does.

    ``generation_config.json`` if there is one; else the top level of ``config.json``, and what is
    still unset there from its decoder (old checkpoints rely on that leak).

    Args:
        folder: the checkpoint; None for a model that has no folder yet.
        raw: its ``config.json``.
    """
    path = None if folder is None else folder / "generation_config.json"
    if path is None or not path.exists():
        return GenerationConfig.from_model_config(dict(raw))
    try:
        return GenerationConfig.from_dict(read_json(path))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: it is not a valid generation config ({error})") from error


def fill_token_ids(
    config: Any, generation: GenerationConfig, tokenizer: Any | None = None
) -> list[str]:
    """Writes pad, start and end ids where they are missing, in the model's config and generation's.

    In order: the config itself, the generation config, the decoder's config, its tokenizer. The
    start falls back to bos or cls, the end to sep, and pad to the end (as GPT-2's users do).

    Returns:
        The names of the ids that could not be derived.

    Raises:
        ConfigError: if an id is not within the decoder's vocabulary.
    """
    eos = _first(config, generation, tokenizer, "eos_token_id", "sep_token_id")
    start = _first(config, generation, tokenizer, "decoder_start_token_id", "bos_token_id")
    start = start if start is not None else getattr(tokenizer, "cls_token_id", None)
    pad = _first(config, generation, tokenizer, "pad_token_id")
    if pad is None:
        pad = eos[0] if isinstance(eos, list | tuple) else eos
    ids = dict(zip(TOKEN_IDS, (pad, start, eos), strict=True))
    for name, value in ids.items():
        _check_id(name, value, config.decoder.vocab_size)
        setattr(config, name, value)
        if getattr(generation, name, None) is None:
            setattr(generation, name, value)
    return [name for name, value in ids.items() if value is None]


def _first(config: Any, generation: Any, tokenizer: Any, *names: str) -> Any:
    for name in names:
        for source in (config, generation, config.decoder, tokenizer):
            value = getattr(source, name, None)
            if value is not None:
                return value
    return None


def _check_id(name: str, value: Any, vocab: int) -> None:
    values = value if isinstance(value, list | tuple) else [value]
    for token in values:
        if token is not None and not 0 <= token < vocab:
            raise ConfigError(
                f"{name}={token} is outside the decoder's vocabulary of {vocab}: set another id."
            )


def require(ids: dict[str, Any]) -> None:
    """Raises ConfigError naming the first id that is None and how to set it."""
    for name, value in ids.items():
        if value is None:
            raise ConfigError(
                f"{name} is not set and cannot be derived from the decoder's config or tokenizer: "
                f"set config.{name}, or pass {name}= when creating the model."
            )


def sort_fields(fields: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Sorts keyword arguments into those of encoder, decoder, generation and the joint config.

    Raises:
        ConfigError: naming one that belongs nowhere.
    """
    encoder: dict[str, Any] = {}
    decoder: dict[str, Any] = {}
    generation: dict[str, Any] = {}
    joint: dict[str, Any] = {}
    settings, known = GenerationConfig().to_dict(), SpeechEncoderDecoderConfig()
    for name, value in fields.items():
        if name in (*TOKEN_IDS, "bos_token_id"):
            joint[name] = value
        elif name in settings:
            generation[name] = value
        elif name.startswith("encoder_"):
            encoder[name.removeprefix("encoder_")] = value
        elif name.startswith("decoder_"):
            decoder[name.removeprefix("decoder_")] = value
        elif hasattr(known, name):
            joint[name] = value
        else:
            raise ConfigError(f"{name}: neither a setting of generation nor of the joint config.")
    return encoder, decoder, generation, joint


def merge_generation(
    given: GenerationConfig | None, defaults: GenerationConfig, overrides: dict[str, Any]
) -> GenerationConfig:
    """Returns ``given`` with what it leaves open taken from ``defaults``, then ``overrides``.

    Raises:
        ConfigError: naming an override that is no setting of generation.
    """
    merged = copy.deepcopy(given or defaults)
    merged.update(**defaults.to_dict(), defaults_only=True)
    unknown = merged.update(**overrides)
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: no such setting of generation.")
    return merged
