"""Diverse beam search: groups of beams that avoid each other's tokens (arXiv:1610.02424).

Matches the group beam search of transformers 4.x (``_group_beam_search`` with a
``BeamSearchScorer``), which 5.23 leaves to remote code. In every step the groups take their turn:
a token loses ``diversity_penalty`` for every beam of an earlier group that has just taken it, and
then each group searches as if there were no other. How it differs from
:mod:`~speech_ed_flax.generation.beam`, and is kept here:

- A hypothesis ends with the first of the end tokens, whichever ended it.
- A group whose finished hypotheses cannot be improved is closed. It goes on "choosing" the fill
  token, which later groups avoid.
- What still runs when the search ends is finished as it stands, in groups that are not closed.
- The hypotheses of all groups are ranked together.

Upstream computes the scores of finished hypotheses in float64, here it is float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from speech_ed_flax.generation.diversity import diversify
from speech_ed_flax.generation.hypotheses import (
    Candidates,
    Finished,
    Hypotheses,
    beginning,
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
class Turn:
    """What a group makes of a step; of several groups the same, side by side.

    Attributes:
        running: hypotheses that go on.
        accumulated: their scores.
        parents: the beams of the utterance that they continue.
        tokens: what later groups avoid.
        finished: the best ended hypotheses so far.
        closed: whether the group is done with an utterance.
        scores: of the vocabulary after the processors.
    """

    running: Hypotheses
    accumulated: Float[Array, "batch paths"]
    parents: Int[Array, "batch paths"]
    tokens: Int[Array, "batch paths"]
    finished: Finished
    closed: Bool[Array, "batch groups"]
    scores: Float[Array, "batch paths vocab"]


@pytree
@dataclass(frozen=True)
class GroupState:
    """Hypotheses of ``length`` tokens that go on, and those that ended, group after group."""

    length: Int[Array, ""]
    running: Hypotheses
    accumulated: Float[Array, "batch beams"]
    finished: Finished
    closed: Bool[Array, "batch groups"]
    unfinished: Bool[Array, ""]
    trail: Trail
    cache: Cache


@dataclass(frozen=True)
class GroupSearch:
    """Searches for the best sequences of each utterance with groups of beams that differ."""

    plan: Plan

    def start(
        self, step: Step, cache: Cache, prompt: Int[Array, "batch prompt"], limits: Limits
    ) -> GroupState:
        """Returns the state after the prompt: of each group only the first beam counts."""
        rows, hypotheses, scores = beginning(prompt, self.plan, limits)
        return GroupState(
            length=jnp.int32(prompt.shape[1]),
            running=hypotheses,
            accumulated=scores,
            finished=Finished.none(hypotheses, prompt.shape[1], -jnp.inf),
            closed=jnp.zeros((prompt.shape[0], self.plan.num_beam_groups), bool),
            unfinished=jnp.bool_(True),
            trail=new_trail(step, cache, rows, self.plan),
            cache=read_prompt(step, rows, cache),
        )

    def advance(self, step: Step, state: GroupState, rules: Rules) -> GroupState:
        """Returns the state after one more step, in which each group took its turn."""
        limits, length = rules.limits, state.length + 1
        batch, beams, capacity = state.running.tokens.shape
        rows = state.running.tokens.reshape(-1, capacity)
        logits, cache = step_last(step, rows, state.length, state.cache)
        log_probs = jax.nn.log_softmax(logits, axis=-1).reshape(batch, beams, -1)
        turns: list[Turn] = []
        for index in range(self.plan.num_beam_groups):
            taken = jnp.concatenate(
                [jnp.zeros((batch, 0), jnp.int32), *(turn.tokens for turn in turns)], axis=1
            )
            turns.append(self._turn(index, state, log_probs, taken, rules))
        joint: Turn = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *turns)
        scores = joint.scores.reshape(logits.shape)
        return GroupState(
            length=length,
            running=joint.running,
            accumulated=joint.accumulated,
            finished=joint.finished,
            closed=joint.closed,
            unfinished=(length < limits.max_length) & ~jnp.all(joint.closed),
            trail=state.trail.write(state.length - limits.prompt_length, scores, logits),
            cache=reorder(cache, joint.parents),
        )

    def finish(self, state: GroupState, limits: Limits) -> Found:
        """Returns the best finished hypotheses of all groups, best first."""
        size = self.plan.group_size
        closed = jnp.repeat(state.closed, size, axis=1)
        scores = state.accumulated / limits.penalty(state.length)
        still = Finished(
            hypotheses=state.running,
            scores=jnp.where(closed, -jnp.inf, scores),
            lengths=jnp.broadcast_to(state.length, scores.shape),
            done=~closed,
        )
        parts = [
            _part(state.finished, first, size).merge(_part(still, first, size))
            for first in range(0, self.plan.num_beams, size)
        ]
        joint: Finished = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)
        _, best = largest(joint.scores, self.plan.num_return_sequences)
        return take(joint, best).found(best.shape[1], state.trail, state.length)

    def _turn(
        self,
        index: int,
        state: GroupState,
        log_probs: Float[Array, "batch beams vocab"],
        taken: Int[Array, "batch taken"],
        rules: Rules,
    ) -> Turn:
        """Searches one step in one group, which avoids the tokens ``taken`` by earlier groups."""
        size, limits = self.plan.group_size, rules.limits
        first = index * size
        running = _part(state.running, first, size)
        batch, _, capacity = running.tokens.shape
        rows = running.tokens.reshape(-1, capacity)
        scores = log_probs[:, first : first + size].reshape(batch * size, -1)
        scores = diversify(scores, taken, limits.diversity)
        scores = rules.apply(rows, scores, state.length).reshape(batch, size, -1)
        names = row_names(batch, self.plan)[:, first : first + size]
        accumulated = state.accumulated[:, first : first + size]
        candidates = propose(running, accumulated, scores, names, state.length, rules)
        closed = state.closed[:, index : index + 1]
        finished = _part(state.finished, first, size).merge(
            _ended(_part(candidates, 0, size), closed, state.length, limits)
        )
        best = candidates.scores[:, :1] / limits.best_penalty(state.length + 1)
        worst = jnp.min(finished.scores, axis=1, keepdims=True)
        full = jnp.all(finished.done, axis=1, keepdims=True)
        going = _first_going(candidates.ended, size)
        return Turn(
            running=take(candidates.hypotheses, going),
            accumulated=take(candidates.scores, going),
            parents=first + take(candidates.parents, going),
            tokens=jnp.where(closed, limits.fill, take(candidates.tokens, going)),
            finished=finished,
            closed=closed | (full & (limits.stops_when_full | (worst >= best))),
            scores=scores,
        )


def _part(values: Any, first: int, count: int) -> Any:
    """Returns ``count`` hypotheses of each utterance, from ``first`` on."""
    return jax.tree.map(lambda leaf: leaf[:, first : first + count], values)


def _ended(
    best: Candidates, closed: Bool[Array, "batch 1"], length: Int[Array, ""], limits: Limits
) -> Finished:
    """Returns those of the best candidates that ended, with the first end token at their end."""
    done, hypotheses = best.ended & ~closed, best.hypotheses
    if limits.end_tokens.shape[0]:
        tokens = hypotheses.tokens.at[:, :, length].set(limits.end_tokens[0])
        hypotheses = replace(hypotheses, tokens=tokens)
    scores = best.scores / limits.penalty(length + 1)
    return Finished(
        hypotheses=hypotheses,
        scores=jnp.where(done, scores, -jnp.inf),
        lengths=jnp.broadcast_to(length + 1, scores.shape),
        done=done,
    )


def _first_going(ended: Bool[Array, "batch candidates"], count: int) -> Int[Array, "batch going"]:
    """Returns the indices of the first ``count`` candidates that have not ended, in order."""
    candidates = ended.shape[1]
    order = jnp.arange(candidates) + candidates * ended
    return largest(-order.astype(jnp.float32), count)[1]
