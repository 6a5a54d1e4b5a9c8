"""One request for generation: from what a caller gives to what is compiled, run and returned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.allowed import Allowed
from speech_ed_flax.generation.generate import generate
from speech_ed_flax.generation.logits import processors, warpers
from speech_ed_flax.generation.output import GenerationOutput
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.generation.stopping import StopStrings, token_texts
from speech_ed_flax.generation.stretches import Streamer, generate_in_stretches
from speech_ed_flax.types import Array, Bool, Float, Int, Params


@dataclass(frozen=True)
class Request:
    """What a caller gives besides speech and settings.

    Attributes:
        prompt: tokens that every sequence begins with ``[batch, prompt]``.
        key: randomness for sampling.
        custom: a user's own processors.
        allowed: what may be generated; see ``allowed_tokens``.
        encoder_tokens: the text that the encoder read ``[batch, any]``, if it did.
        log_probs: whether token log-probabilities and confidence are wanted.
        streamer: receives the tokens while they are generated.
        tokenizer: of the decoder; needed for stop strings.
    """

    prompt: Int[np.ndarray, "batch prompt"]
    key: Any
    custom: Sequence[Callable] = ()
    allowed: Allowed | None = None
    encoder_tokens: Any | None = None
    log_probs: bool = False
    streamer: Streamer | None = None
    tokenizer: Any | None = None


def respond(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    generation: Any,
    request: Request,
) -> GenerationOutput:
    """Generates what a request asks for.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
            ``[batch, mels, frames]``).
        mask: which samples are real; None if all are.
        generation: transformers' generation config, complete.
        request: what else was given.

    Raises:
        ConfigError: naming a setting that is invalid, not supported, or does not fit another.
    """
    arguments = _arguments(module, params, inputs, mask, generation, request)
    length, max_time = request.prompt.shape[1], generation.max_time
    if request.streamer is None and max_time is None:
        return GenerationOutput.of(generate(*arguments), length)
    found = generate_in_stretches(*arguments, streamer=request.streamer, max_time=max_time)
    return GenerationOutput.of(found, length)


def compile_ahead(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    generation: Any,
    request: Request,
) -> jax.stages.Compiled:
    """Compiles what ``respond`` runs, which then finds it compiled; runs nothing."""
    arguments = _arguments(module, params, inputs, mask, generation, request)
    compiled: Any = generate
    return compiled.lower(*arguments).compile()


def _arguments(
    module: Any, params: Params, inputs: Any, mask: Any, generation: Any, request: Request
) -> tuple[Any, ...]:
    """Returns the arguments of ``generate``."""
    plan, rules = prepare(module.decoder.config, generation, request)
    return module, params, inputs, mask, jnp.asarray(request.prompt), plan, rules


def prepare(decoder: Any, generation: Any, request: Request) -> tuple[Plan, Rules]:
    """Returns what is compiled for a request, and what that reads.

    Args:
        decoder: config of the module.
        generation: transformers' generation config, complete.
        request: what else was given.

    Raises:
        ConfigError: naming a setting that is invalid, not supported, or does not fit another.
    """
    length = request.prompt.shape[1]
    settings = GenerationSettings.from_hf(generation, length, decoder.vocab)
    plan = Plan.of(settings, length, decoder.positions, request.log_probs)
    return plan, _rules(settings, plan, decoder.vocab, request)


def _rules(settings: GenerationSettings, plan: Plan, vocab: int, request: Request) -> Rules:
    """Makes on the host what the compiled search reads."""
    length = request.prompt.shape[1]
    chain = processors(
        settings, length, vocab, request.custom, request.encoder_tokens, request.allowed
    )
    stop = _stop_strings(settings, plan, vocab, request.tokenizer)
    return Rules(Limits.of(settings, length, plan, stop), (*chain, *warpers(settings)), request.key)


def _stop_strings(
    settings: GenerationSettings, plan: Plan, vocab: int, tokenizer: Any | None
) -> StopStrings | None:
    if not settings.stop_strings:
        return None
    if tokenizer is None:
        raise ConfigError("stop_strings needs a tokenizer and there is none: pass tokenizer=.")
    if plan.num_beam_groups > 1:
        raise ConfigError("stop_strings does not work with num_beam_groups: drop one of them.")
    return _stop_table(tokenizer, settings.stop_strings, vocab)


@lru_cache(maxsize=8)
def _stop_table(tokenizer: Any, strings: tuple[str, ...], vocab: int) -> StopStrings:
    return StopStrings.of(strings, _texts(tokenizer), vocab)


@lru_cache(maxsize=2)
def _texts(tokenizer: Any) -> list[bytes]:
    return token_texts(tokenizer)
