"""What a sequence begins with: the start token, and perhaps a given prefix or a language."""

from typing import Any

import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.types import Int


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


def target_language_token(tokenizer: Any | None, language: str) -> int:
    """Returns the token that makes an mBART checkpoint write a language (``de`` or ``de_DE``).

    Raises:
        ConfigError: if the tokenizer has no such language, or no languages at all.
    """
    if tokenizer is None:
        raise ConfigError("target_language needs the checkpoint's tokenizer, and it has none.")
    codes = sorted(token for token in tokenizer.get_vocab() if _is_language_code(token))
    chosen = [code for code in codes if language in (code, code.split("_")[0])]
    if not chosen:
        known = ", ".join(codes) or "none: it is not multilingual"
        raise ConfigError(f"target_language={language!r} is not in the tokenizer (it has {known}).")
    return tokenizer.convert_tokens_to_ids(chosen[0])


def _is_language_code(token: str) -> bool:
    head, _, tail = token.partition("_")
    return 2 <= len(head) <= 3 and head.islower() and len(tail) == 2 and tail.isupper()
