"""Beam search, greedy or sampled, in one loop over static shapes.

Matches ``GenerationMixin._beam_search`` of transformers 5.23 to the token. What is peculiar there
and kept here:

- A step looks at ``max(2, 1 + end tokens) * beams`` candidates, so that enough of them go on even
  if every beam could end. Of those only the best ``beams`` may become finished hypotheses.
- A hypothesis that reaches ``max_length`` without an end token is finished like any other.
- What must not win is not removed: -1e9 is added to its score, which in float32 erases the score.
- An utterance whose running beams cannot improve on its finished ones is closed for good, but the
  loop goes on until every utterance is closed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.generation.logits import Processor, largest
from speech_ed_flax.generation.search import (
    Cache,
    Step,
    apply,
    blank,
    check_key,
    is_end,
    read_prompt,
    step_last,
)
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.types import Array, Bool, Float, Int, PRNGKeyArray

EXCLUDED = -1e9
"""Added to the score of what must not be chosen, and the score of what does not exist yet."""


class Beams(NamedTuple):
    """Holds the best finished hypotheses of each utterance, best first.

    ``lengths`` counts prompt and generated tokens, the end token included; beyond it a sequence is
    filled. Cropping everything to the largest length gives the shape that
    ``transformers.generate`` returns. ``scores`` are log-probabilities with the length penalty.
    """

    tokens: Int[Array, "batch sequences max_length"]
    scores: Float[Array, "batch sequences"]
    lengths: Int[Array, "batch sequences"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Running:
    """Hypotheses that go on, ``length`` tokens each."""

    tokens: Int[Array, "batch beams max_length"]
    scores: Float[Array, "batch beams"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Finished:
    """The best ended hypotheses so far; a slot not yet ``done`` holds no hypothesis."""

    tokens: Int[Array, "batch beams max_length"]
    scores: Float[Array, "batch beams"]
    lengths: Int[Array, "batch beams"]
    done: Bool[Array, "batch beams"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Candidates:
    """Continuations of the running hypotheses by one token, best (or first drawn) first."""

    tokens: Int[Array, "batch candidates max_length"]
    scores: Float[Array, "batch candidates"]
    parents: Int[Array, "batch candidates"]
    ended: Bool[Array, "batch candidates"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _State:
    length: Int[Array, ""]
    running: _Running
    finished: _Finished
    improvable: Bool[Array, " batch"]
    unfinished: Bool[Array, ""]
    cache: Cache


def beam(
    step: Step,
    cache: Cache,
    prompt: Int[Array, "batch prompt"],
    settings: GenerationSettings,
    processors: Sequence[Processor] = (),
    warpers: Sequence[Processor] = (),
    key: PRNGKeyArray | None = None,
) -> Beams:
    """Searches for the best sequences of each utterance with ``num_beams`` hypotheses.

    Processors and warpers see the log-probabilities of the running hypotheses, as rows. With
    ``do_sample`` the candidates of a step are drawn without replacement instead of taken from the
    top.

    Args:
        step: see :mod:`speech_ed_flax.generation.search`; its rows are batch x beams, beams
            innermost, from the first call on.
        cache: what the step carries, every leaf leading with batch x beams.
        prompt: at least one token an utterance, none of it padding.
        settings: beams, lengths, penalties and special tokens.
        processors: applied in order to the log-probabilities.
        warpers: applied after the processors.
        key: randomness; needed if ``do_sample``.

    Raises:
        ConfigError: the prompt leaves no room, or a key is missing.
    """
    check_key(settings, key)
    prompt_length = prompt.shape[1]
    chain = (*processors, *warpers)
    penalties = _length_penalties(settings, prompt_length)

    def advance(state: _State) -> _State:
        scores, cache = _continuation_scores(step, chain, state)
        candidates = _best_candidates(scores, state, settings, key)
        running, parents = _keep_running(candidates, settings)
        finished = _finish(candidates, state, settings, penalties[state.length - prompt_length])
        length = state.length + 1
        improvable = state.improvable & _can_improve(
            running, finished, _best_penalty(penalties, length - prompt_length, settings)
        )
        return _State(
            length=length,
            running=running,
            finished=finished,
            improvable=improvable,
            unfinished=_goes_on(improvable, finished, candidates, settings),
            cache=_reorder(cache, parents),
        )

    start = _start(step, cache, prompt, settings)
    final = lax.while_loop(lambda state: state.unfinished, advance, start)
    best = slice(None, settings.num_return_sequences)
    return Beams(
        final.finished.tokens[:, best],
        final.finished.scores[:, best],
        final.finished.lengths[:, best],
    )


def _start(
    step: Step, cache: Cache, prompt: Int[Array, "batch prompt"], settings: GenerationSettings
) -> _State:
    """Returns the state before the first step: all beams equal, all but the first excluded."""
    batch, prompt_length = prompt.shape
    repeated = jnp.repeat(prompt[:, None], settings.num_beams, axis=1)  # [batch, beams, prompt]
    tokens = blank(repeated, settings, settings.beam_fill)
    excluded = jnp.full((batch, settings.num_beams), EXCLUDED, jnp.float32)
    return _State(
        length=jnp.int32(prompt_length),
        running=_Running(tokens, excluded.at[:, 0].set(0.0)),
        finished=_Finished(
            tokens=tokens,
            scores=excluded,
            lengths=jnp.full(excluded.shape, prompt_length, jnp.int32),
            done=jnp.zeros(excluded.shape, bool),
        ),
        improvable=jnp.ones(batch, bool),
        unfinished=jnp.bool_(True),
        cache=read_prompt(step, repeated.reshape(-1, prompt_length), cache),
    )


def _continuation_scores(
    step: Step, chain: Sequence[Processor], state: _State
) -> tuple[Float[Array, "batch beams vocab"], Cache]:
    """Returns the accumulated score of every continuation of every running hypothesis."""
    batch, beams, max_length = state.running.tokens.shape
    rows = state.running.tokens.reshape(-1, max_length)
    logits, cache = step_last(step, rows, state.length, state.cache)
    scores = apply(chain, rows, jax.nn.log_softmax(logits, axis=-1), state.length)
    return scores.reshape(batch, beams, -1) + state.running.scores[:, :, None], cache


def _best_candidates(
    scores: Float[Array, "batch beams vocab"],
    state: _State,
    settings: GenerationSettings,
    key: PRNGKeyArray | None,
) -> _Candidates:
    """Chooses candidates among all continuations of an utterance.

    Drawing without replacement in proportion to exp(score) is taking the largest scores after
    adding independent Gumbel noise (arXiv:1903.06059).
    """
    batch, _, vocab = scores.shape
    flat = scores.reshape(batch, -1)
    count = max(2, 1 + len(settings.eos_token_id)) * settings.num_beams
    if settings.do_sample and key is not None:
        noise = jax.random.gumbel(jax.random.fold_in(key, state.length), flat.shape, flat.dtype)
        _, indices = largest(flat + noise, count)
        chosen = jnp.take_along_axis(flat, indices, axis=1)
    else:
        chosen, indices = largest(flat, count)
    parents, added = indices // vocab, indices % vocab
    return _Candidates(
        tokens=lax.dynamic_update_slice_in_dim(
            _take(state.running.tokens, parents), added[:, :, None], state.length, axis=2
        ),
        scores=chosen,
        parents=parents,
        ended=is_end(added, settings) | (state.length + 1 >= settings.max_length),
    )


def _keep_running(
    candidates: _Candidates, settings: GenerationSettings
) -> tuple[_Running, Int[Array, "batch beams"]]:
    """Returns the best candidates that have not ended, and the beam each of them continues."""
    scores, chosen = largest(candidates.scores + _exclude(candidates.ended), settings.num_beams)
    return _Running(_take(candidates.tokens, chosen), scores), _take(candidates.parents, chosen)


def _finish(
    candidates: _Candidates,
    state: _State,
    settings: GenerationSettings,
    penalty: Float[Array, ""],
) -> _Finished:
    """Merges the candidates that ended with the hypotheses finished before.

    ``penalty`` divides the scores of the candidates.
    """
    old = state.finished
    among_best = np.arange(candidates.scores.shape[1]) < settings.num_beams
    done = candidates.ended & among_best
    full = jnp.all(old.done, axis=1, keepdims=True) & (settings.early_stopping is True)
    # Three separate additions: how often -1e9 was added orders what is left of the scores.
    scores = candidates.scores / penalty + _exclude(full)
    scores = scores + _exclude(~state.improvable[:, None])
    scores = scores + _exclude(~done)
    new = _Finished(
        tokens=candidates.tokens,
        scores=scores,
        lengths=jnp.broadcast_to(state.length + 1, scores.shape),
        done=done,
    )
    merged = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), old, new)
    _, best = largest(merged.scores, settings.num_beams)
    return jax.tree.map(lambda leaf: _take(leaf, best), merged)


def _can_improve(
    running: _Running, finished: _Finished, penalty: Float[Array, ""]
) -> Bool[Array, " batch"]:
    """Returns whether the best running hypothesis might beat the worst finished one.

    ``penalty`` is the divisor of the length at which the running hypothesis is imagined to end.
    """
    possible = running.scores[:, :1] / penalty
    worst = jnp.min(finished.scores, axis=1, keepdims=True)
    return jnp.any(possible > jnp.where(finished.done, worst, EXCLUDED), axis=1)


def _goes_on(
    improvable: Bool[Array, " batch"],
    finished: _Finished,
    candidates: _Candidates,
    settings: GenerationSettings,
) -> Bool[Array, ""]:
    """Returns whether the loop takes another step."""
    going = jnp.any(improvable) & ~jnp.all(candidates.ended)
    if settings.early_stopping is True:
        going = going & ~jnp.all(finished.done)
    return going


def _length_penalties(
    settings: GenerationSettings, prompt_length: int
) -> Float[Array, " new_tokens"]:
    """Returns the divisor of scores after 1, 2, ... generated tokens, rounded from float64."""
    generated = np.arange(1, settings.max_length - prompt_length + 1, dtype=np.float64)
    return jnp.asarray(generated**settings.length_penalty, jnp.float32)


def _best_penalty(
    penalties: Float[Array, " new_tokens"],
    generated: Int[Array, ""],
    settings: GenerationSettings,
) -> Float[Array, ""]:
    """Returns the divisor for the length at which a running hypothesis is imagined to end.

    That is now, or as late as possible if the search stops only when nothing can improve and
    longer hypotheses are favoured.
    """
    if settings.early_stopping == "never" and settings.length_penalty > 0:
        return penalties[-1]
    return penalties[generated - 1]


def _exclude(excluded: Bool[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.where(excluded, jnp.float32(EXCLUDED), jnp.float32(0))


def _take(values: Array, indices: Int[Array, "batch chosen"]) -> Array:
    """Gathers along axis 1 for each utterance, which needs no exchange when batch is sharded."""
    return jax.vmap(lambda value, index: value[index])(values, indices)


def _reorder(cache: Cache, parents: Int[Array, "batch beams"]) -> Cache:
    """Returns the cache with each beam's rows replaced by those of the beam it continues."""

    def reorder(leaf: Array) -> Array:
        return _take(leaf.reshape(*parents.shape, *leaf.shape[1:]), parents).reshape(leaf.shape)

    return jax.tree.map(reorder, cache)
