"""Generation with a model: speech in, token ids out, compiled as a whole or in three parts.

``generate`` encodes and searches in one compiled function with one loop. ``begin``, ``proceed`` and
``conclude`` are the same functions compiled one by one, so that the host may look at the search, or
end it, between two stretches of the loop; they find the same tokens.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax

from speech_ed_flax.generation.alignment import cross_attentions
from speech_ed_flax.generation.plan import Limits, Plan, check_key
from speech_ed_flax.generation.search import State, run, search_of
from speech_ed_flax.generation.steps import Found, Rules, Step
from speech_ed_flax.layers.cache import empty_cache
from speech_ed_flax.layers.transformer import Context
from speech_ed_flax.model import match_dtype
from speech_ed_flax.precision import widen
from speech_ed_flax.types import Array, Bool, Float, Int, Params


class Generated(NamedTuple):
    """What was found, and the cross-attention of each layer to it, if it is recorded."""

    found: Found
    attentions: tuple[Float[Array, "sequences heads target source"], ...] | None


def _begin(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    prompt: Int[Array, "batch prompt"],
    plan: Plan,
    limits: Limits,
) -> tuple[Context, State]:
    """Encodes, reads the prompt, and returns what the decoder hears and the state of the search."""
    params = widen(params)
    inputs = match_dtype(inputs, params)
    context: Any = module.apply({"params": params}, inputs, mask, method="listen")
    rows, dtype = prompt.shape[0] * plan.copies, context.layers[0].key.dtype
    cache = empty_cache(module.decoder.config, rows, plan.cache_length, dtype, slots=plan.copies)
    step = _step_of(module, params, context)
    return context, search_of(plan).start(step, cache, prompt, limits)


def _proceed(
    module: nn.Module,
    params: Params,
    context: Context,
    state: State,
    plan: Plan,
    rules: Rules,
    until: Int[Array, ""] | None = None,
) -> State:
    """Searches on, to the end or until the sequences have ``until`` tokens."""
    check_key(plan, rules.key)
    step = _step_of(module, widen(params), context)
    return run(search_of(plan), step, state, rules, until)


def _conclude(
    module: nn.Module,
    params: Params,
    context: Context,
    state: State,
    plan: Plan,
    limits: Limits,
) -> Generated:
    """Returns what was found."""
    found = search_of(plan).finish(state, limits)
    if not plan.record.attentions:
        return Generated(found, None)
    tokens = found.tokens[:, :-1]
    return Generated(found, cross_attentions(module, widen(params), context, tokens))


def _generate(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    prompt: Int[Array, "batch prompt"],
    plan: Plan,
    rules: Rules,
) -> Generated:
    """Encodes once and decodes in one ``lax.while_loop``.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        inputs: waveforms ``[batch, samples]`` or features ``[batch, frames, mels]`` (Whisper's
            ``[batch, mels, frames]``).
        mask: which samples are real; None if all are.
        prompt: tokens every sequence begins with, at least one.
        plan: what is compiled.
        rules: what the search reads; other rules of the same structure compile nothing anew.

    Raises:
        ConfigError: if the plan samples and the rules have no key.
    """
    context, state = _begin(module, params, inputs, mask, prompt, plan, rules.limits)
    state = _proceed(module, params, context, state, plan, rules)
    return _conclude(module, params, context, state, plan, rules.limits)


def _step_of(module: nn.Module, params: Params, context: Context) -> Step:
    """Returns the model as a step of a search."""

    def step(tokens, position, cache):
        # Rows of one utterance share its context: the decoder folds them, nothing is copied.
        logits, cache = module.apply(
            {"params": params}, tokens, context, cache, position, method="decode"
        )
        return logits[:, -1], cache

    return step


generate = jax.jit(_generate, static_argnames=("module", "plan"))
begin = jax.jit(_begin, static_argnames=("module", "plan"))
proceed = jax.jit(_proceed, static_argnames=("module", "plan"), donate_argnames=("state",))
conclude = jax.jit(_conclude, static_argnames=("module", "plan"))
