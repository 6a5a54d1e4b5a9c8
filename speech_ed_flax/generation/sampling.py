"""Greedy search and sampling: every row is continued by one token at a time, on its own.

Matches ``GenerationMixin._sample`` of transformers 5.23. Processors see the raw float32 logits. A
row ends with an end token, with a string that stops it, or at the largest length; the search ends
with the last row.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.steps import (
    Cache,
    Found,
    Rules,
    Step,
    Trail,
    blank,
    new_trail,
    read_prompt,
    step_last,
    write,
)
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Float, Int


@pytree
@dataclass(frozen=True)
class SampleState:
    """Rows of ``length`` tokens each, of which those that ended earlier are filled."""

    length: Int[Array, ""]
    tokens: Int[Array, "rows capacity"]
    lengths: Int[Array, " rows"]
    finished: Bool[Array, " rows"]
    unfinished: Bool[Array, ""]
    stops: Int[Array, " rows"] | None
    log_probs: Float[Array, "rows steps"] | None
    trail: Trail
    cache: Cache


@dataclass(frozen=True)
class Sampling:
    """Continues each row with its likeliest token, or with a drawn one if the plan samples."""

    plan: Plan

    def start(
        self, step: Step, cache: Cache, prompt: Int[Array, "batch prompt"], limits: Limits
    ) -> SampleState:
        """Returns the state after the prompt."""
        prompt = jnp.repeat(prompt, self.plan.copies, axis=0)
        rows, length = prompt.shape
        room = (rows, self.plan.capacity - length)
        return SampleState(
            length=jnp.int32(length),
            tokens=blank(prompt, self.plan, limits),
            lengths=jnp.full(rows, length, jnp.int32),
            finished=jnp.zeros(rows, bool),
            unfinished=jnp.bool_(True),
            stops=None if limits.stop is None else limits.stop.start(prompt),
            log_probs=jnp.zeros(room, jnp.float32) if self.plan.record.log_probs else None,
            trail=new_trail(step, cache, prompt, self.plan),
            cache=read_prompt(step, prompt, cache),
        )

    def advance(self, step: Step, state: SampleState, rules: Rules) -> SampleState:
        """Returns the state with one more token in every row that goes on."""
        limits, length = rules.limits, state.length + 1
        logits, cache = step_last(step, state.tokens, state.length, state.cache)
        scores = rules.apply(state.tokens, logits, state.length)
        chosen = self._choose(scores, rules, state.length)
        chosen = jnp.where(state.finished, limits.fill, chosen)
        finished, stops = state.finished | rules.is_end(chosen), state.stops
        if limits.stop is not None and stops is not None:
            stops, stopped = limits.stop.advance(stops, chosen)
            finished = finished | stopped
        index = state.length - limits.prompt_length
        return SampleState(
            length=length,
            tokens=lax.dynamic_update_index_in_dim(state.tokens, chosen, state.length, axis=1),
            lengths=jnp.where(state.finished, state.lengths, length),
            finished=finished,
            unfinished=(length < limits.max_length) & ~jnp.all(finished),
            stops=stops,
            log_probs=_write_log_probs(state, scores, chosen, index),
            trail=state.trail.write(index, scores, logits),
            cache=cache,
        )

    def finish(self, state: SampleState, limits: Limits) -> Found:
        """Returns the rows."""
        return Found(
            tokens=state.tokens,
            lengths=state.lengths,
            scores=None,
            log_probs=state.log_probs,
            parents=None,
            trail=state.trail,
            length=state.length,
        )

    def _choose(
        self, scores: Float[Array, "rows vocab"], rules: Rules, length: Int[Array, ""]
    ) -> Int[Array, " rows"]:
        if self.plan.do_sample:
            chosen = jax.random.categorical(rules.key_of(length), scores, axis=-1)
        else:
            # On XLA:CPU the maximum and the first index that equals it take as long as this.
            chosen = jnp.argmax(scores, axis=-1)
        return chosen.astype(jnp.int32)


def _write_log_probs(
    state: SampleState,
    scores: Float[Array, "rows vocab"],
    chosen: Int[Array, " rows"],
    index: Int[Array, ""],
) -> Float[Array, "rows steps"] | None:
    """Records how likely the chosen tokens were after the processors; 0 in rows that ended."""
    if state.log_probs is None:
        return None
    log_probs = jnp.take_along_axis(jax.nn.log_softmax(scores), chosen[:, None], axis=1)[:, 0]
    return write(state.log_probs, jnp.where(state.finished, 0.0, log_probs), index, axis=1)
