"""New models of two halves, each from a checkpoint or a config, for a vocabulary old or new."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import GenerationConfig

from speech_ed_flax.conversion.config import (
    TOKEN_IDS,
    fill_token_ids,
    require,
    resolve_generation,
)
from speech_ed_flax.conversion.halves import VOCABULARY, Half, random_half, read_half
from speech_ed_flax.conversion.hub import resolve
from speech_ed_flax.conversion.load import Loaded, join_halves
from speech_ed_flax.conversion.processor import (
    Processor,
    fit_features,
    load_features,
    load_tokenizer,
)
from speech_ed_flax.errors import CheckpointError, ConfigError
from speech_ed_flax.layers.linear import DEVIATION
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

LONGEST_TEXT = 448
"""Tokens that a new model generates at most, unless it is told otherwise: as Whisper does."""

_OF_OTHER_TOKENS = (
    "forced_bos_token_id",
    "forced_eos_token_id",
    "suppress_tokens",
    "begin_suppress_tokens",
)
"""Fields of configs that name tokens of the vocabulary that a kind of decoder usually has."""


def create(
    encoder: Mapping[str, Any],
    decoder: Mapping[str, Any],
    tokenizer: Any | None = None,
    *,
    seed: int = 0,
    dtype: Any = jnp.float32,
    padding: str = "exact",
    attention: str = "xla",
    local_files_only: bool = False,
) -> FlaxSpeechEncoderDecoderModel:
    """Makes a model to be trained.

    Each half is ``{"from": folder or Hub name, ...}`` for the weights of a checkpoint, or
    ``{"model_type": "wav2vec2", ...}`` for random ones; the rest are fields of its config. With
    fewer layers or positions than its checkpoint it gets the first of them, and the features
    follow: ``{"from": whisper, "max_source_positions": 400}`` hears 8 s.

    Args:
        encoder: the half that hears.
        decoder: the half that writes.
        tokenizer: folder, Hub name, or tokenizer of transformers; that of the decoder's checkpoint
            if omitted. Another one than that gives a pretrained decoder new embeddings.
        seed: of what starts at random.
        dtype: of the parameters.
        padding: see ``FlaxSpeechEncoderDecoderModel``.
        attention: likewise.
        local_files_only: whether to stay off the network.

    Returns:
        The model; ``fresh`` and ``shortened`` say what no checkpoint gave, and what was left out.

    Raises:
        CheckpointError: naming the file and the tensors that do not fit.
        ConfigError: naming the field that is unknown, missing or not supported.
    """
    folders = [_folder(half, local_files_only) for half in (encoder, decoder)]
    hearing, writing = (_changes(half) for half in (encoder, decoder))
    own = load_tokenizer(folders[1]) if folders[1] else None
    tokenizer = own if tokenizer is None else _tokenizer(tokenizer, local_files_only)
    is_new = tokenizer is not None and not _same_vocabulary(tokenizer, own)
    writer = _decoder(folders[1], writing, tokenizer if is_new else None)
    hearer = (
        read_half("encoder", folders[0], hearing) if folders[0] else random_half("encoder", hearing)
    )
    loaded = _spread(join_halves(hearer, writer, {}, padding, dtype, jax.random.key(seed)))
    generation = _generation(loaded, folders[1] if not is_new else None)
    features = load_features(folders[0]) if folders[0] else None
    features = fit_features(features, loaded.module.encoder.config)
    require(dict.fromkeys(fill_token_ids(loaded.config, generation, tokenizer)))
    processor = Processor(features, tokenizer)
    return FlaxSpeechEncoderDecoderModel.of_loaded(loaded, generation, processor, attention)


def _spread(loaded: Loaded) -> Loaded:
    """Gives random dense layers and embeddings the deviation that their config asks for.

    It is ``init_std`` or ``initializer_range``. A projection between the halves is the decoder's.
    """
    params = flatten_dict(loaded.params, sep="/")
    for path in loaded.fresh:
        config = loaded.config.encoder if path.startswith("encoder/") else loaded.config.decoder
        wanted = getattr(config, "init_std", None) or getattr(config, "initializer_range", None)
        if wanted and path.endswith(("/weight", "/embedding")):
            params[path] = params[path] * (wanted / DEVIATION)
    return replace(loaded, params=unflatten_dict(params, sep="/"))


def _folder(half: Mapping[str, Any], local_files_only: bool) -> Path | None:
    if "from" not in half:
        return None
    return resolve(half["from"], local_files_only=local_files_only)


def _changes(half: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in half.items() if name != "from"}


def _tokenizer(given: Any, local_files_only: bool) -> Any:
    if not isinstance(given, str | Path):
        return given
    found = load_tokenizer(resolve(given, local_files_only=local_files_only))
    if found is None:
        raise CheckpointError(f"{given}: it holds no tokenizer; look for tokenizer.json.")
    return found


def _same_vocabulary(tokenizer: Any, own: Any | None) -> bool:
    return own is not None and tokenizer.get_vocab() == own.get_vocab()


def _decoder(folder: Path | None, changes: dict[str, Any], tokenizer: Any | None) -> Half:
    """Returns the half that writes, with the vocabulary of ``tokenizer`` if that is new to it."""
    if tokenizer is not None:
        changes = _vocabulary(tokenizer) | changes
        _check_size(tokenizer, changes["vocab_size"])
    if folder is not None:
        half = read_half("decoder", folder, changes, VOCABULARY if tokenizer is not None else ())
    else:
        half = random_half("decoder", changes)
    if tokenizer is not None or folder is None:
        for name in _OF_OTHER_TOKENS:
            if hasattr(half.config, name) and name not in changes:
                setattr(half.config, name, None)
    return half


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    """Returns the fields of a decoder's config that a tokenizer decides."""
    start = tokenizer.bos_token_id
    start = tokenizer.cls_token_id if start is None else start
    end = tokenizer.eos_token_id
    end = tokenizer.sep_token_id if end is None else end
    pad = tokenizer.pad_token_id
    ids: dict[str, Any] = dict(
        zip(TOKEN_IDS, (end if pad is None else pad, start, end), strict=True)
    )
    require(ids)
    return {"vocab_size": _size(tokenizer), "bos_token_id": start} | ids


def _size(tokenizer: Any) -> int:
    return 1 + max(tokenizer.get_vocab().values())


def _check_size(tokenizer: Any, size: int) -> None:
    if size < _size(tokenizer):
        raise ConfigError(
            f"decoder_vocab_size={size}: the tokenizer has {_size(tokenizer)} tokens; leave "
            "vocab_size out, or raise it."
        )


def _generation(loaded: Loaded, folder: Path | None) -> GenerationConfig:
    """Returns the settings of generation: Whisper's own for its vocabulary, else the usual ones.

    Those of other checkpoints are for other tasks: BART's forbid repeated words.
    """
    positions = loaded.module.decoder.config.positions
    own = folder if loaded.config.decoder.model_type == "whisper" else None
    generation: Any = resolve_generation(own, loaded.config.to_dict())
    generation.max_length = min(positions, generation.max_length or LONGEST_TEXT, LONGEST_TEXT)
    return generation
