"""What every search does alike: feed the last tokens, change the scores, know the end, record.

A search knows no model. It sees ``step(tokens, position, cache) -> (logits, cache)``: ``tokens``
[rows, length] continue the rows at index ``position``, ``logits`` [rows, vocab] in float32 belong
to the last given token, and ``cache`` is any pytree whose leaves lead with ``rows``. What does not
change, such as the encoder's states, is closed over by the step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.processor import Processor
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Float, Int, PRNGKeyArray

Cache = Any
Step = Callable[[Array, Array, Cache], tuple[Array, Cache]]


@pytree
@dataclass(frozen=True)
class Rules:
    """What a search reads at every step and never changes.

    Attributes:
        limits: of the search.
        processors: applied in order to the scores, those of sampling last.
        key: randomness, if the plan samples.
    """

    limits: Limits
    processors: tuple[Processor, ...] = ()
    key: PRNGKeyArray | None = None

    def apply(
        self,
        tokens: Int[Array, "rows capacity"],
        scores: Float[Array, "rows vocab"],
        length: Int[Array, ""],
    ) -> Float[Array, "rows vocab"]:
        """Returns the scores after every processor."""
        return reduce(
            lambda changed, processor: processor(tokens, changed, length), self.processors, scores
        )

    def key_of(self, length: Int[Array, ""]) -> PRNGKeyArray:
        """Returns the key of the step that continues sequences of ``length`` tokens."""
        assert self.key is not None, "a search that samples was started without a key"
        return jax.random.fold_in(self.key, length)

    def is_end(self, tokens: Int[Array, "*shape"]) -> Bool[Array, "*shape"]:
        """Returns True where a token is one of the end tokens."""
        return jnp.any(tokens[..., None] == self.limits.end_tokens, axis=-1)


@pytree
@dataclass(frozen=True)
class Trail:
    """The scores of all rows at every step, as far as they are recorded."""

    scores: Float[Array, "steps rows vocab"] | None
    logits: Float[Array, "steps rows vocab"] | None

    def write(
        self,
        index: Int[Array, ""],
        scores: Float[Array, "rows vocab"],
        logits: Float[Array, "rows vocab"],
    ) -> Trail:
        """Returns the trail with one more step."""
        return Trail(write(self.scores, scores, index, 0), write(self.logits, logits, index, 0))


class Found(NamedTuple):
    """What a search found: ``num_return_sequences`` sequences for each utterance, in order.

    Attributes:
        tokens: the sequences, filled behind their ends. Cropping all of them to the largest
            length gives the shape that ``transformers.generate`` returns.
        lengths: prompt and generated tokens, the end token included.
        scores: log-probabilities with the length penalty, of beams.
        log_probs: of each generated token, 0 behind the end; if recorded.
        parents: the row that each generated token continued, -1 behind the end; if recorded.
        trail: scores of the steps, if recorded.
        length: of all rows when the search ended, prompt included: one token for each step.
    """

    tokens: Int[Array, "sequences capacity"]
    lengths: Int[Array, " sequences"]
    scores: Float[Array, " sequences"] | None
    log_probs: Float[Array, "sequences steps"] | None
    parents: Int[Array, "sequences steps"] | None
    trail: Trail
    length: Int[Array, ""]


def blank(
    prompt: Int[Array, "*batch prompt"], plan: Plan, limits: Limits
) -> Int[Array, "*batch capacity"]:
    """Returns the prompt, extended to the capacity with the fill token."""
    room = (*prompt.shape[:-1], plan.capacity - prompt.shape[-1])
    rest = jnp.broadcast_to(jnp.asarray(limits.fill), room)
    return jnp.concatenate([prompt, rest], axis=-1)


def new_trail(step: Step, cache: Cache, prompt: Int[Array, "rows prompt"], plan: Plan) -> Trail:
    """Returns room for what the plan records of the scores."""
    if not (plan.record.scores or plan.record.logits):
        return Trail(None, None)
    logits, _ = jax.eval_shape(step, prompt[:, -1:], jnp.int32(0), cache)
    room = jnp.zeros((plan.capacity - prompt.shape[1], *logits.shape), jnp.float32)
    return Trail(room if plan.record.scores else None, room if plan.record.logits else None)


def read_prompt(step: Step, prompt: Int[Array, "rows prompt"], cache: Cache) -> Cache:
    """Returns the cache after all prompt tokens but the last, which the loop feeds itself."""
    if prompt.shape[1] == 1:
        return cache
    _, cache = step(prompt[:, :-1], jnp.int32(0), cache)
    return cache


def step_last(
    step: Step, tokens: Int[Array, "rows capacity"], length: Int[Array, ""], cache: Cache
) -> tuple[Float[Array, "rows vocab"], Cache]:
    """Feeds the last token of each row of ``length`` tokens; returns float32 logits and cache."""
    last = lax.dynamic_slice_in_dim(tokens, length - 1, 1, axis=1)
    logits, cache = step(last, length - 1, cache)
    return logits.astype(jnp.float32), cache


def write(
    room: Array | None, values: Array | None, index: Int[Array, ""], axis: int
) -> Array | None:
    """Returns ``room`` with ``values`` written at ``index``; None if nothing is recorded."""
    if room is None or values is None:
        return None
    return lax.dynamic_update_index_in_dim(room, values, index, axis)
