"""Beam search, greedy or sampled, over static shapes.

Matches ``GenerationMixin._beam_search`` of transformers 5.23 to the token. What is peculiar there
and kept here:

- A step looks at ``max(2, 1 + end tokens) * beams`` candidates, so that enough of them go on even
  if every beam could end. Of those only the best ``beams`` may become finished hypotheses.
- A hypothesis that reaches ``max_length`` without an end token is finished like any other.
- What must not win is not removed: -1e9 is added to its score, which in float32 erases the score.
- An utterance whose running beams cannot improve on its finished ones is closed for good, but the
  loop goes on until every utterance is closed.

Processors see the log-probabilities of the running hypotheses, as rows (batch x beams, beams
innermost). When the plan samples, the candidates of a step are drawn without replacement instead
of taken from the top.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.generation.hypotheses import (
    EXCLUDED,
    Candidates,
    Finished,
    Hypotheses,
    beginning,
    exclude,
    propose,
    reorder,
    row_names,
    take,
)
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.ranking import largest
from speech_ed_flax.generation.steps import (
    Cache,
    Found,
    Rules,
    Step,
    Trail,
    new_trail,
    read_prompt,
    step_last,
)
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Float, Int


@pytree
@dataclass(frozen=True)
class BeamState:
    """Hypotheses of ``length`` tokens that go on, and those that ended."""

    length: Int[Array, ""]
    running: Hypotheses
    scores: Float[Array, "batch beams"]
    finished: Finished
    improvable: Bool[Array, " batch"]
    unfinished: Bool[Array, ""]
    trail: Trail
    cache: Cache


@dataclass(frozen=True)
class BeamSearch:
    """Searches for the best sequences of each utterance with ``num_beams`` hypotheses."""

    plan: Plan

    def start(
        self, step: Step, cache: Cache, prompt: Int[Array, "batch prompt"], limits: Limits
    ) -> BeamState:
        """Returns the state after the prompt: all beams equal, all but the first excluded."""
        rows, hypotheses, scores = beginning(prompt, self.plan, limits)
        return BeamState(
            length=jnp.int32(prompt.shape[1]),
            running=hypotheses,
            scores=scores,
            finished=Finished.none(hypotheses, prompt.shape[1], EXCLUDED),
            improvable=jnp.ones(prompt.shape[0], bool),
            unfinished=jnp.bool_(True),
            trail=new_trail(step, cache, rows, self.plan),
            cache=read_prompt(step, rows, cache),
        )

    def advance(self, step: Step, state: BeamState, rules: Rules) -> BeamState:
        """Returns the state after one more step of every utterance."""
        limits, length = rules.limits, state.length + 1
        batch, beams, capacity = state.running.tokens.shape
        rows = state.running.tokens.reshape(-1, capacity)
        logits, cache = step_last(step, rows, state.length, state.cache)
        scores = rules.apply(rows, jax.nn.log_softmax(logits, axis=-1), state.length)
        candidates = propose(
            state.running,
            state.scores,
            scores.reshape(batch, beams, -1),
            row_names(batch, self.plan),
            state.length,
            rules,
            self.plan.do_sample,
        )
        ended = candidates.ended | (length >= limits.max_length)
        going, chosen = largest(candidates.scores + exclude(ended), beams)
        finished = self._finish(candidates, ended, state, limits)
        improvable = state.improvable & _can_improve(going, finished, limits.best_penalty(length))
        full = limits.stops_when_full & jnp.all(finished.done)
        return BeamState(
            length=length,
            running=take(candidates.hypotheses, chosen),
            scores=going,
            finished=finished,
            improvable=improvable,
            unfinished=jnp.any(improvable) & ~jnp.all(ended) & ~full,
            trail=state.trail.write(state.length - limits.prompt_length, scores, logits),
            cache=reorder(cache, take(candidates.parents, chosen)),
        )

    def finish(self, state: BeamState, limits: Limits) -> Found:
        """Returns the best finished hypotheses, best first."""
        return state.finished.found(self.plan.num_return_sequences, state.trail, state.length)

    def _finish(
        self,
        candidates: Candidates,
        ended: Bool[Array, "batch candidates"],
        state: BeamState,
        limits: Limits,
    ) -> Finished:
        """Merges the candidates that ended with the hypotheses finished before."""
        old, length = state.finished, state.length + 1
        done = ended & (np.arange(ended.shape[1]) < self.plan.num_beams)
        full = jnp.all(old.done, axis=1, keepdims=True) & limits.stops_when_full
        # Three separate additions: how often -1e9 was added orders what is left of the scores.
        scores = candidates.scores / limits.penalty(length) + exclude(full)
        scores = scores + exclude(~state.improvable[:, None])
        scores = scores + exclude(~done)
        lengths = jnp.broadcast_to(length, scores.shape)
        return old.merge(Finished(candidates.hypotheses, scores, lengths, done))


def _can_improve(
    running: Float[Array, "batch beams"], finished: Finished, penalty: Float[Array, ""]
) -> Bool[Array, " batch"]:
    """Returns whether the best running hypothesis might beat the worst finished one.

    ``penalty`` is the divisor of the length at which the running hypothesis is imagined to end.
    """
    possible = running[:, :1] / penalty
    worst = jnp.min(finished.scores, axis=1, keepdims=True)
    return jnp.any(possible > jnp.where(finished.done, worst, EXCLUDED), axis=1)
