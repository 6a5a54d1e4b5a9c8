"""What a sequence begins with: the start token, a given prefix, or Whisper's task."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.types import Array, Float, Int, Params


def with_start(tokens: Any | None, start: int, batch: int) -> Int[np.ndarray, "batch prompt"]:
    """Returns ``tokens`` behind the start token (which they may begin with already).

    Args:
        tokens: ``[batch, prompt]``, or None for the start token alone.
        start: the decoder's start token.
        batch: number of utterances.

    Raises:
        ConfigError: if ``tokens`` is not ``[batch, prompt]``.
    """
    if tokens is None:
        return np.full((batch, 1), start, np.int32)
    tokens = np.asarray(tokens, np.int32)
    if tokens.ndim != 2 or tokens.shape[0] != batch or tokens.shape[1] == 0:
        raise ConfigError(
            f"decoder_input_ids has shape {list(tokens.shape)}: it must be [{batch}, prompt]."
        )
    if (tokens[:, 0] == start).all():
        return tokens
    return np.concatenate([np.full((batch, 1), start, np.int32), tokens], axis=1)


def whisper_prompt(
    generation: Any, start: int, languages: Int[np.ndarray, " batch"] | None, task: str | None
) -> Int[np.ndarray, "batch prompt"]:
    """Returns start, language, task and "no timestamps", as the checkpoint was trained.

    Args:
        generation: Whisper's generation config.
        start: the start token.
        languages: language token of each utterance; None for an English-only checkpoint.
        task: "transcribe" or "translate".

    Raises:
        ConfigError: if the checkpoint does not know the task.
    """
    if languages is None:
        if task not in (None, "transcribe"):
            raise ConfigError(f"task={task!r}: this checkpoint transcribes English only.")
        tokens = np.array([[start]], np.int32)
    else:
        tasks = generation.task_to_id
        if (task or "transcribe") not in tasks:
            raise ConfigError(f"task={task!r} is not known: use one of {', '.join(tasks)}.")
        column = np.full_like(languages, tasks[task or "transcribe"])
        tokens = np.stack([np.full_like(languages, start), languages, column], axis=1)
    silent = getattr(generation, "no_timestamps_token_id", None)
    if silent is None:
        return tokens
    return np.pad(tokens, ((0, 0), (0, 1)), constant_values=silent)


def whisper_language(generation: Any, language: str) -> int:
    """Returns the token of a language given as ``en``, ``<|en|>`` or ``english``.

    Raises:
        ConfigError: listing the languages, if it is none of them.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = TO_LANGUAGE_CODE.get(language.lower(), language.lower().strip("<|>"))
    token = f"<|{code}|>"
    if token not in generation.lang_to_id:
        known = ", ".join(sorted(name.strip("<|>") for name in generation.lang_to_id))
        raise ConfigError(f"language={language!r} is not known: use one of {known}.")
    return generation.lang_to_id[token]


@jax.jit(static_argnames=("module", "start", "languages"))
def detect_language(
    module: nn.Module,
    params: Params,
    features: Float[Array, "batch mels frames"],
    start: int,
    languages: tuple[int, ...],
) -> Int[Array, " batch"]:
    """Returns the likeliest of Whisper's language tokens after the start token."""
    variables = {"params": params}
    states, mask = module.apply(variables, features, None, method="encode")
    context = module.apply(variables, states, mask, method="context")
    tokens = jnp.full((features.shape[0], 1), start, jnp.int32)
    logits, _ = module.apply(variables, tokens, context, method="decode")
    choices = jnp.array(languages)
    return choices[jnp.argmax(logits[:, -1, choices], axis=-1)]


def target_language_token(tokenizer: Any | None, language: str) -> int:
    """Returns the token that makes an mBART checkpoint speak a language (``de`` or ``de_DE``).

    Raises:
        ConfigError: if the tokenizer has no such language, or no languages at all.
    """
    if tokenizer is None:
        raise ConfigError("target_language needs the checkpoint's tokenizer, and it has none.")
    codes = [token for token in tokenizer.get_vocab() if _is_language_code(token)]
    chosen = [code for code in codes if language in (code, code.split("_")[0])]
    if not chosen:
        known = ", ".join(sorted(codes)) or "none: it is not multilingual"
        raise ConfigError(f"target_language={language!r} is not in the tokenizer (it has {known}).")
    return tokenizer.convert_tokens_to_ids(chosen[0])


def _is_language_code(token: str) -> bool:
    head, _, tail = token.partition("_")
    return 2 <= len(head) <= 3 and head.islower() and len(tail) == 2 and tail.isupper()
