"""A search that the host accompanies: tokens handed on while the loop runs, and an end in time."""

import time
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import flax.linen as nn
import jax
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.generate import Generated, begin, conclude, proceed
from speech_ed_flax.generation.plan import Plan
from speech_ed_flax.generation.steps import Rules
from speech_ed_flax.precision import widen
from speech_ed_flax.types import Array, Bool, Float, Int, Params

STRETCH = 8
"""Tokens between two looks at the search: few enough to read along, many enough to cost little."""


@runtime_checkable
class Streamer(Protocol):
    """What receives tokens while they are generated, such as transformers' ``TextStreamer``."""

    def put(self, value: Any) -> None:
        """Receives the prompt ``[rows, prompt]``, then one token of each row ``[rows]`` a time."""
        ...

    def end(self) -> None:
        """Is told that nothing follows."""
        ...


def check_streamer(streamer: Any, plan: Plan) -> None:
    """Raises ConfigError if beams, whose tokens may yet change, are to be streamed."""
    if streamer is not None and plan.num_beams > 1:
        raise ConfigError(
            f"streamer needs num_beams=1, which is {plan.num_beams}: a beam's tokens are not "
            "settled before the end."
        )


def generate_in_stretches(
    module: nn.Module,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    prompt: Int[Array, "batch prompt"],
    plan: Plan,
    rules: Rules,
    streamer: Streamer | None = None,
    max_time: float | int | None = None,
) -> Generated:
    """Generates what ``generate`` does, looking at the search every few tokens.

    Args:
        module: see ``generate``.
        params: see ``generate``.
        inputs: see ``generate``.
        mask: see ``generate``.
        prompt: see ``generate``.
        plan: see ``generate``.
        rules: see ``generate``.
        streamer: receives the tokens.
        max_time: seconds after which the next token is the last, whatever it is. As upstream the
            encoder is not counted; nor is compilation.

    Raises:
        ConfigError: if there is a streamer and the plan has beams.
    """
    check_streamer(streamer, plan)
    params = widen(params)  # once, not at every stretch
    context, state = begin(module, params, inputs, mask, prompt, plan, rules.limits)
    length = prompt.shape[1]

    def search_on(state: Any, until: int) -> Any:
        return proceed(module, params, context, state, plan, rules, np.int32(until))

    if max_time is not None:
        state = search_on(state, length)  # not a step, but compiled before the clock starts
    jax.block_until_ready(state)
    started = time.monotonic()
    if streamer is not None:
        streamer.put(np.repeat(np.asarray(prompt), plan.copies, axis=0))
    while bool(state.unfinished):
        if max_time is not None and time.monotonic() - started > max_time:
            last = replace(rules.limits, max_length=np.array(length + 1, np.int32))
            rules = replace(rules, limits=last)
        state = search_on(state, length + STRETCH)
        if streamer is not None:
            for tokens in np.asarray(state.tokens)[:, length : int(state.length)].T:
                streamer.put(tokens)
        length = int(state.length)
    if streamer is not None:
        streamer.end()
    return conclude(module, params, context, state, plan, rules.limits)
