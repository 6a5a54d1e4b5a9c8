"""Greedy search and sampling, written over a step function and any cache.

The search knows no model. It sees ``step(tokens, position, cache) -> (logits, cache)``: ``tokens``
[rows, length] continue the rows at index ``position``, ``logits`` [rows, vocab] in float32 belong
to the last given token, and ``cache`` is any pytree whose leaves lead with ``rows``. What does not
change, such as the encoder's states, is closed over by the step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.logits import Processor
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.types import Array, Bool, Float, Int, PRNGKeyArray

Cache = Any
Step = Callable[[Array, Array, Cache], tuple[Array, Cache]]


class Rows(NamedTuple):
    """Holds generated rows: tokens, and how many of them are prompt or text up to the end token.

    Beyond its length a row is filled with the pad token. Cropping all rows to the largest length
    gives the shape that ``transformers.generate`` returns.
    """

    tokens: Int[Array, "rows max_length"]
    lengths: Int[Array, " rows"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    length: Int[Array, ""]
    tokens: Int[Array, "rows max_length"]
    lengths: Int[Array, " rows"]
    finished: Bool[Array, " rows"]
    cache: Cache


def sample(
    step: Step,
    cache: Cache,
    prompt: Int[Array, "rows prompt"],
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    warpers: Sequence[Processor] = (),
    key: PRNGKeyArray | None = None,
) -> Rows:
    """Generates each row token by token: the likeliest one, or a drawn one if ``do_sample``.

    Matches ``GenerationMixin._sample`` of transformers 5.23. Processors and warpers see the raw
    float32 logits. Rows are independent; a row ends with an end token or at ``max_length``, and
    the loop ends with the last row.

    Args:
        step: the model, see the module's docstring.
        cache: what the step carries, empty at the start.
        prompt: at least one token a row, none of it padding.
        settings: lengths, end and pad tokens, ``do_sample``.
        processors: applied in order to the logits.
        warpers: applied after the processors.
        key: randomness; needed if ``do_sample``.

    Raises:
        ConfigError: the prompt leaves no room, or a key is missing.
    """
    check_key(settings, key)
    rows = prompt.shape[0]
    chain = (*processors, *warpers)

    def advance(state: _State) -> _State:
        logits, cache = step_last(step, state.tokens, state.length, state.cache)
        scores = apply(chain, state.tokens, logits, state.length)
        chosen = _choose(scores, settings, key, state.length)
        chosen = jnp.where(state.finished, settings.row_fill, chosen)
        return replace(
            state,
            length=state.length + 1,
            tokens=lax.dynamic_update_slice_in_dim(
                state.tokens, chosen[:, None], state.length, axis=1
            ),
            lengths=jnp.where(state.finished, state.lengths, state.length + 1),
            finished=state.finished | is_end(chosen, settings),
            cache=cache,
        )

    final = lax.while_loop(
        lambda state: (state.length < settings.max_length) & ~jnp.all(state.finished),
        advance,
        _State(
            length=jnp.int32(prompt.shape[1]),
            tokens=blank(prompt, settings, settings.row_fill),
            lengths=jnp.full(rows, prompt.shape[1], jnp.int32),
            finished=jnp.zeros(rows, bool),
            cache=read_prompt(step, prompt, cache),
        ),
    )
    return Rows(final.tokens, final.lengths)


def check_key(settings: GenerationSettings, key: PRNGKeyArray | None) -> None:
    """Raises ConfigError if the settings sample but no random key was given."""
    if settings.do_sample and key is None:
        raise ConfigError("do_sample needs randomness: pass key=jax.random.key(seed).")


def blank(
    prompt: Int[Array, "*batch prompt"], settings: GenerationSettings, fill: int
) -> Int[Array, "*batch max_length"]:
    """Returns the prompt, extended to ``max_length`` with ``fill``.

    Raises:
        ConfigError: the prompt is empty or leaves no room.
    """
    settings.check_prompt(prompt.shape[-1])
    shape = (*prompt.shape[:-1], settings.max_length)
    return jnp.full(shape, fill, jnp.int32).at[..., : prompt.shape[-1]].set(prompt)


def read_prompt(step: Step, prompt: Int[Array, "rows prompt"], cache: Cache) -> Cache:
    """Returns the cache after all prompt tokens but the last, which the loop feeds itself."""
    if prompt.shape[1] == 1:
        return cache
    _, cache = step(prompt[:, :-1], jnp.int32(0), cache)
    return cache


def step_last(
    step: Step, tokens: Int[Array, "rows max_length"], length: Int[Array, ""], cache: Cache
) -> tuple[Float[Array, "rows vocab"], Cache]:
    """Feeds the last token of each row of ``length`` tokens; returns float32 logits and cache."""
    last = lax.dynamic_slice_in_dim(tokens, length - 1, 1, axis=1)
    logits, cache = step(last, length - 1, cache)
    return logits.astype(jnp.float32), cache


def apply(
    chain: Sequence[Processor],
    tokens: Int[Array, "rows max_length"],
    scores: Float[Array, "rows vocab"],
    length: Int[Array, ""],
) -> Float[Array, "rows vocab"]:
    """Returns the scores after every processor, in order."""
    return reduce(lambda changed, processor: processor(tokens, changed, length), chain, scores)


def is_end(tokens: Int[Array, "*shape"], settings: GenerationSettings) -> Bool[Array, "*shape"]:
    """Returns True where a token is one of the end tokens."""
    ends = np.array(settings.eos_token_id, np.int32)
    return jnp.any(tokens[..., None] == ends, axis=-1)


def _choose(
    scores: Float[Array, "rows vocab"],
    settings: GenerationSettings,
    key: PRNGKeyArray | None,
    length: Int[Array, ""],
) -> Int[Array, " rows"]:
    if settings.do_sample and key is not None:
        chosen = jax.random.categorical(jax.random.fold_in(key, length), scores, axis=-1)
    else:
        chosen = jnp.argmax(scores, axis=-1)
    return chosen.astype(jnp.int32)
