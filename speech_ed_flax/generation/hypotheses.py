"""What searches with beams share: hypotheses of an utterance side by side, and how they grow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.ranking import largest
from speech_ed_flax.generation.steps import Cache, Found, Rules, Trail, blank, write
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Float, Int, Size

EXCLUDED = -1e9
"""Added to the score of what must not be chosen, and the score of what does not exist yet."""


@pytree
@dataclass(frozen=True)
class Hypotheses:
    """Sequences, and as far as it is recorded how they came about.

    Attributes:
        tokens: of each hypothesis.
        stops: how much each has read of the strings that would end it.
        log_probs: of each generated token after the processors; 0 if there is none yet.
        parents: the row that each generated token continued; -1 if there is none yet.
    """

    tokens: Int[Array, "batch paths capacity"]
    stops: Int[Array, "batch paths"] | None
    log_probs: Float[Array, "batch paths steps"] | None
    parents: Int[Array, "batch paths steps"] | None

    @classmethod
    def of(cls, prompt: Int[Array, "batch paths prompt"], plan: Plan, limits: Limits) -> Hypotheses:
        """Returns hypotheses that hold the prompt alone."""
        room = (*prompt.shape[:-1], plan.capacity - prompt.shape[-1])
        return cls(
            tokens=blank(prompt, plan, limits),
            stops=None if limits.stop is None else limits.stop.start(prompt),
            log_probs=jnp.zeros(room, jnp.float32) if plan.record.log_probs else None,
            parents=jnp.full(room, -1, jnp.int32) if plan.record.parents else None,
        )


@pytree
@dataclass(frozen=True)
class Finished:
    """The best ended hypotheses so far; a slot not yet ``done`` holds no hypothesis."""

    hypotheses: Hypotheses
    scores: Float[Array, "batch paths"]
    lengths: Int[Array, "batch paths"]
    done: Bool[Array, "batch paths"]

    @classmethod
    def none(cls, prompts: Hypotheses, prompt_length: int, score: float) -> Finished:
        """Returns slots that hold no hypothesis yet, and a score below that of any."""
        shape = prompts.tokens.shape[:2]
        return cls(
            hypotheses=prompts,
            scores=jnp.full(shape, score, jnp.float32),
            lengths=jnp.full(shape, prompt_length, jnp.int32),
            done=jnp.zeros(shape, bool),
        )

    def merge(self, new: Finished) -> Finished:
        """Returns the best of these and the new ones, as many as there are slots here."""
        joint = jax.tree.map(lambda *sides: jnp.concatenate(sides, axis=1), self, new)
        return take(joint, largest(joint.scores, self.scores.shape[1])[1])

    def found(self, count: int, trail: Trail, length: Int[Array, ""]) -> Found:
        """Returns the first ``count`` hypotheses of each utterance."""

        def rows(values: Any) -> Any:
            return None if values is None else values[:, :count].reshape(-1, *values.shape[2:])

        return Found(
            tokens=rows(self.hypotheses.tokens),
            lengths=rows(self.lengths),
            scores=rows(self.scores),
            log_probs=rows(self.hypotheses.log_probs),
            parents=rows(self.hypotheses.parents),
            trail=trail,
            length=length,
        )


@pytree
@dataclass(frozen=True)
class Candidates:
    """Continuations of hypotheses by one token, best (or first drawn) first.

    Attributes:
        hypotheses: with the token.
        scores: accumulated.
        tokens: what was added.
        parents: the hypothesis that was continued.
        ended: whether the token, or a string that it completes, ends the sequence.
    """

    hypotheses: Hypotheses
    scores: Float[Array, "batch candidates"]
    tokens: Int[Array, "batch candidates"]
    parents: Int[Array, "batch candidates"]
    ended: Bool[Array, "batch candidates"]


def propose(
    running: Hypotheses,
    accumulated: Float[Array, "batch paths"],
    scores: Float[Array, "batch paths vocab"],
    rows: Int[Array, "batch paths"],
    length: Int[Array, ""],
    rules: Rules,
    do_sample: bool = False,
) -> Candidates:
    """Chooses candidates among all continuations of an utterance.

    There are so many that as many as there are hypotheses go on even if all could end. Drawing
    without replacement in proportion to exp(score) is taking the largest scores after adding
    independent Gumbel noise (arXiv:1903.06059).

    Args:
        running: the hypotheses, ``length`` tokens each.
        accumulated: their scores.
        scores: of the next token of each.
        rows: what each is called among ``parents``.
        length: of the hypotheses.
        rules: of the search.
        do_sample: whether candidates are drawn.
    """
    batch, paths, vocab = scores.shape
    flat = (scores + accumulated[:, :, None]).reshape(batch, -1)
    count = max(2, 1 + rules.limits.end_tokens.shape[0]) * paths
    if do_sample:
        noise = jax.random.gumbel(rules.key_of(length), flat.shape, flat.dtype)
        _, indices = largest(flat + noise, count)
        chosen = jnp.take_along_axis(flat, indices, axis=1)
    else:
        chosen, indices = largest(flat, count)
    parents, added = indices // vocab, indices % vocab
    grown = take(running, parents)
    index = length - rules.limits.prompt_length
    stops, ended = grown.stops, rules.is_end(added)
    if rules.limits.stop is not None and stops is not None:
        stops, stopped = rules.limits.stop.advance(stops, added)
        ended = ended | stopped
    log_probs = None
    if grown.log_probs is not None:
        log_probs = jnp.take_along_axis(scores.reshape(batch, -1), indices, axis=1)
    grown = Hypotheses(
        tokens=lax.dynamic_update_index_in_dim(grown.tokens, added, length, axis=2),
        stops=stops,
        log_probs=write(grown.log_probs, log_probs, index, axis=2),
        parents=write(grown.parents, take(rows, parents), index, axis=2),
    )
    return Candidates(grown, chosen, added, parents, ended)


def beginning(
    prompt: Int[Array, "batch prompt"], plan: Plan, limits: Limits
) -> tuple[Int[Array, "rows prompt"], Hypotheses, Float[Array, "batch beams"]]:
    """Returns the prompt of every row, the hypotheses that hold it, and their scores.

    All hypotheses are equal, so of each group all but the first are excluded.
    """
    repeated = jnp.repeat(prompt[:, None], plan.num_beams, axis=1)
    excluded = jnp.full(repeated.shape[:2], EXCLUDED, jnp.float32)
    return (
        repeated.reshape(-1, prompt.shape[1]),
        Hypotheses.of(repeated, plan, limits),
        excluded.at[:, :: plan.group_size].set(0.0),
    )


def row_names(batch: Size, plan: Plan) -> Int[Array, "batch beams"]:
    """Returns the index of every beam among all rows."""
    return jnp.arange(batch * plan.num_beams, dtype=jnp.int32).reshape(batch, plan.num_beams)


def exclude(excluded: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Returns what to add to a score: nothing, or what makes it the worst."""
    return jnp.where(excluded, jnp.float32(EXCLUDED), jnp.float32(0))


def take(values: Any, indices: Int[Array, "batch chosen"]) -> Any:
    """Gathers along axis 1 for each utterance, which needs no exchange when batch is sharded."""
    choose = jax.vmap(lambda value, index: value[index])
    return jax.tree.map(lambda leaf: choose(leaf, indices), values)


def reorder(cache: Cache, parents: Int[Array, "batch beams"]) -> Cache:
    """Returns the cache in which each beam continues another one.

    A cache that has a method ``continued(parents)`` does that itself; of any other the rows move.
    """

    def of_leaf(leaf: Array) -> Array:
        return take(leaf.reshape(*parents.shape, *leaf.shape[1:]), parents).reshape(leaf.shape)

    if hasattr(cache, "continued"):
        return cache.continued(parents)
    return jax.tree.map(of_leaf, cache)
