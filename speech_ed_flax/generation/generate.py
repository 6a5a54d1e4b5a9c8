"""Generation with a model: speech in, token ids out, in one compiled function."""

from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.generation.beam import beam
from speech_ed_flax.generation.logits import Processor, processors, warpers
from speech_ed_flax.generation.search import sample
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.layers.decoder import empty_cache
from speech_ed_flax.model import match_dtype
from speech_ed_flax.types import Array, Bool, Float, Int, Params, PRNGKeyArray


class Generated(NamedTuple):
    """Sequences of every utterance, side by side; see ``Rows`` and ``Beams`` for the fields."""

    tokens: Int[Array, "sequences max_length"]
    lengths: Int[Array, " sequences"]
    scores: Float[Array, " sequences"] | None


@partial(jax.jit, static_argnames=("module", "settings", "custom"))
def generate(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    prompt: Int[Array, "batch prompt"],
    key: PRNGKeyArray,
    settings: GenerationSettings,
    custom: tuple[Processor, ...] = (),
) -> Generated:
    """Encodes once and decodes in one ``lax.while_loop``.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        inputs: waveforms ``[batch, samples]`` or features ``[batch, mels, frames]``.
        mask: which samples are real; None if all are.
        prompt: tokens every sequence begins with, at least one.
        key: randomness for sampling.
        settings: see ``GenerationSettings``.
        custom: further processors, called ``(tokens, scores, length) -> scores``.

    Returns:
        ``num_return_sequences`` rows for each utterance, in order.
    """
    variables = {"params": params}
    inputs = match_dtype(inputs, params)
    encoded: Any = module.apply(variables, inputs, mask, method="encode")
    states, mask = encoded
    context = module.apply(variables, states, mask, method="context")
    copies = settings.num_beams if settings.num_beams > 1 else settings.num_return_sequences
    rows = prompt.shape[0] * copies
    cache = empty_cache(module.decoder.config, rows, settings.max_length, states.dtype)

    def step(tokens, position, cache):
        # Rows of one utterance share its context: the decoder folds them, nothing is copied.
        logits, cache = module.apply(variables, tokens, context, cache, position, method="decode")
        return logits[:, -1], cache

    chain = processors(settings, prompt.shape[1], custom)
    if settings.num_beams > 1:
        beams = beam(step, cache, prompt, settings, chain, warpers(settings), key)
        flat = beams.tokens.reshape(-1, beams.tokens.shape[-1])
        return Generated(flat, beams.lengths.ravel(), beams.scores.ravel())
    prompt = jnp.repeat(prompt, copies, axis=0)
    rows = sample(step, cache, prompt, settings, chain, warpers(settings), key)
    return Generated(rows.tokens, rows.lengths, None)
