"""How Whisper is told what to do: start, language, task and "no timestamps" as first tokens.

Behaviour matched: the short-form path of transformers 5.23 ``WhisperGenerationMixin.generate``.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import match_dtype
from speech_ed_flax.precision import widen
from speech_ed_flax.types import Array, Bool, Float, Int, Params


def whisper_prompt(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    generation: Any,
    start: int,
    language: str | None,
    task: str | None,
) -> Int[np.ndarray, "batch prompt"]:
    """Returns the first tokens of each utterance.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        inputs: what is to be transcribed; read only to detect the language.
        mask: which samples are real; None if all are.
        generation: Whisper's generation config.
        start: the start token.
        language: as ``en``, ``<|en|>`` or ``english``; None to detect it.
        task: "transcribe" (the default) or "translate".

    Raises:
        ConfigError: if the checkpoint does not know the language or the task.
    """
    columns = [np.full(inputs.shape[0], start, np.int32)]
    if languages := languages_of(generation):
        if language is None:
            detected = detect_language(module, params, inputs, mask, start, languages)
            columns.append(np.asarray(detected))
        else:
            columns.append(np.full_like(columns[0], language_token(generation, language)))
        columns.append(np.full_like(columns[0], _task_token(generation, task or "transcribe")))
    elif language not in (None, "en", "english") or task not in (None, "transcribe"):
        raise ConfigError(
            f"language={language!r}, task={task!r}: this checkpoint only transcribes English."
        )
    silent = getattr(generation, "no_timestamps_token_id", None)
    if silent is not None:
        columns.append(np.full_like(columns[0], silent))
    return np.stack(columns, axis=1)


LANGUAGE = 1
"""Where the token of the language stands, if there is one."""


def languages_of(generation: Any) -> tuple[int, ...]:
    """Returns the tokens of the languages that a checkpoint can be told; none if it knows one."""
    multilingual = getattr(generation, "is_multilingual", True)
    return tuple((getattr(generation, "lang_to_id", None) or {}).values()) if multilingual else ()


def _task_token(generation: Any, task: str) -> int:
    if task not in generation.task_to_id:
        known = ", ".join(generation.task_to_id)
        raise ConfigError(f"task={task!r} is not known: use one of {known}.")
    return generation.task_to_id[task]


def language_token(generation: Any, language: str) -> int:
    """Returns the token of a language given as ``en``, ``<|en|>`` or ``english``.

    Raises:
        ConfigError: listing the languages, if it is none of them.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    code = language.lower().strip("<|>")
    token = f"<|{TO_LANGUAGE_CODE.get(code, code)}|>"
    if token not in generation.lang_to_id:
        known = ", ".join(sorted(name.strip("<|>") for name in generation.lang_to_id))
        raise ConfigError(f"language={language!r} is not known: use one of {known}.")
    return generation.lang_to_id[token]


@partial(jax.jit, static_argnames=("module", "start", "languages"))
def detect_language(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    start: int,
    languages: tuple[int, ...],
) -> Int[Array, " batch"]:
    """Returns the likeliest of the language tokens after the start token."""
    params = widen(params)
    variables = {"params": params}
    context: Any = module.apply(variables, match_dtype(inputs, params), mask, method="listen")
    tokens = jnp.full((inputs.shape[0], 1), start, jnp.int32)
    logits, _ = module.apply(variables, tokens, context, method="decode")
    choices = jnp.array(languages)
    return choices[jnp.argmax(logits[:, -1, choices], axis=-1)]
