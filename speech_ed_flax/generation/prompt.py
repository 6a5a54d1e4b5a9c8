"""What a sequence begins with: the start token, and perhaps a given prefix or a language."""

from typing import Any

import flax.linen as nn
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.whisper import whisper_prompt
from speech_ed_flax.types import Array, Bool, Float, Int, Params


def first_tokens(
    module: nn.Module,
    params: Params,
    config: Any,
    generation: Any,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    tokens: Any | None,
    language: str | None,
    task: str | None,
) -> Int[np.ndarray, "batch prompt"]:
    """Returns what every sequence begins with.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        config: transformers' ``SpeechEncoderDecoderConfig``.
        generation: transformers' generation config; with a prompt of Whisper's own,
            ``forced_decoder_ids`` is taken out of it, as upstream.
        inputs: what is to be transcribed; read only to detect the language.
        mask: which samples are real; None if all are.
        tokens: given ones ``[batch, prompt]``, or None.
        language: for Whisper; None to detect it.
        task: for Whisper.

    Raises:
        ConfigError: if there is no start token, or a language or task that nothing asks for.
    """
    start = generation.decoder_start_token_id
    start = config.decoder_start_token_id if start is None else start
    if start is None:
        raise ConfigError(
            "decoder_start_token_id is not set: set config.decoder_start_token_id, or pass it."
        )
    if config.decoder.model_type == "whisper" and tokens is None:
        generation.forced_decoder_ids = None
        return whisper_prompt(module, params, inputs, mask, generation, start, language, task)
    if language is not None or task is not None:
        raise ConfigError(
            "language and task are for Whisper without decoder_input_ids: for mBART pass "
            "target_language."
        )
    return with_start(tokens, start, inputs.shape[0])


def with_start(tokens: Any | None, start: int, batch: int) -> Int[np.ndarray, "batch prompt"]:
    """Returns ``tokens`` behind the start token (which they may begin with already).

    Args:
        tokens: ``[batch, prompt]``, or None for the start token alone.
        start: the decoder's start token.
        batch: number of utterances.

    Raises:
        ConfigError: if ``tokens`` is not ``[batch, prompt]``.
    """
    column = np.full((batch, 1), start, np.int32)
    if tokens is None:
        return column
    tokens = np.asarray(tokens, np.int32)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] == 0:
        raise ConfigError(
            f"decoder_input_ids has shape {list(tokens.shape)}: it must be [{batch}, prompt]."
        )
    if (tokens[:, 0] == start).all():
        return tokens
    return np.concatenate([column, tokens], axis=1)


def write_in(language: str | None, generation: Any, model_type: str, tokenizer: Any | None) -> None:
    """Makes generation begin with the token of a language, if one is wanted.

    Args:
        language: see ``target_language_token``.
        generation: transformers' generation config, which is changed.
        model_type: of the decoder.
        tokenizer: of the decoder, if there is one.

    Raises:
        ConfigError: if the decoder cannot be told, or its tokenizer has no such language.
    """
    if language is not None:
        generation.forced_bos_token_id = target_language_token(model_type, tokenizer, language)


def target_language_token(model_type: str, tokenizer: Any | None, language: str) -> int:
    """Returns the token that makes an mBART checkpoint write a language.

    Args:
        model_type: of the decoder.
        tokenizer: of the decoder, if there is one.
        language: to be written: ``de``, ``de_DE``, or the id of a token, which XLS-R's Catalan
            (250005), Welsh (250007) and Latvian (250017) borrow from other languages.

    Raises:
        ConfigError: if the decoder is not mBART's, or its tokenizer has no such language.
    """
    if model_type != "mbart":
        raise ConfigError(
            f"target_language={language!r}: only mBART decoders choose their language by a token, "
            f"this one is {model_type!r}."
        )
    if tokenizer is None:
        raise ConfigError("target_language needs the checkpoint's tokenizer, and it has none.")
    if language.isdecimal() and int(language) < len(tokenizer):
        return int(language)
    codes = sorted(token for token in tokenizer.get_vocab() if _is_language_code(token))
    chosen = [code for code in codes if language in (code, code.split("_")[0])]
    if not chosen:
        known = ", ".join(codes) or "none: it is not multilingual"
        raise ConfigError(f"target_language={language!r} is not in the tokenizer (it has {known}).")
    return tokenizer.convert_tokens_to_ids(chosen[0])


def _is_language_code(token: str) -> bool:
    head, _, tail = token.partition("_")
    return 2 <= len(head) <= 3 and head.islower() and len(tail) == 2 and tail.isupper()
