"""Processors that shape the distribution from which a token is drawn.

Every class matches the PyTorch processor of transformers 5.23 named in its docstring. ``keep`` is
how many tokens stay at least. ``candidates`` is how many tokens an earlier warper left alive (None:
all of them): only those are ranked then, and make up the whole distribution. Where more than that
tie at the edge, the surplus, which upstream ranks lowest, has no part in it.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax.scipy.special import entr

from speech_ed_flax.generation.processor import Length, Real, Scores, Tokens
from speech_ed_flax.generation.ranking import (
    largest,
    last_of,
    last_to_reach,
    not_after,
    value_to_reach,
)
from speech_ed_flax.pytree import STATIC, pytree
from speech_ed_flax.types import Array, Bool, Float

TOP_H_CANDIDATES = 100
"""How many of the likeliest tokens top-H considers; a constant upstream too."""


@pytree
@dataclass(frozen=True)
class Temperature:
    """Divides the scores by a temperature. Matches ``TemperatureLogitsWarper``."""

    temperature: Real

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores divided by the temperature."""
        return scores / self.temperature


@pytree
@dataclass(frozen=True)
class TopH:
    """Keeps the likeliest tokens whose entropies sum to at most a share of the distribution's.

    Matches ``TopHLogitsWarper`` (arXiv:2509.02510). The likeliest token always stays.
    """

    share: Real

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf outside the set."""
        values, indices = largest(scores, min(TOP_H_CANDIDATES, scores.shape[-1]))
        likelihood = jax.nn.softmax(values, axis=-1)
        entropy = entr(likelihood)
        limit = self.share * jnp.sum(entropy, axis=-1, keepdims=True)
        kept = (jnp.cumsum(entropy, axis=-1) <= limit) & (likelihood > 0)
        kept = kept.at[:, 0].set(True)
        nothing = jnp.full_like(scores, -jnp.inf)
        return jax.vmap(lambda row, index, value: row.at[index].set(value))(
            nothing, indices, jnp.where(kept, values, -jnp.inf)
        )


@pytree
@dataclass(frozen=True)
class TopK:
    """Keeps the ``count`` largest scores and whatever equals the last of them.

    Matches ``TopKLogitsWarper``.
    """

    count: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf below the ``count``-th largest."""
        return _only(scores >= _nth_largest(scores, self.count), scores)


@pytree
@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of likeliest tokens whose probability reaches ``probability``.

    Matches ``TopPLogitsWarper``.
    """

    probability: Real
    keep: int = field(metadata=STATIC)
    candidates: int | None = field(default=None, metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf outside the set."""
        vocab = scores.shape[-1]
        if self.candidates is None or self.candidates >= vocab:
            likelihood = jax.nn.softmax(scores, axis=-1)
            enough = not_after(scores, *last_to_reach(scores, likelihood, self.probability))
            least = not_after(scores, *last_of(scores, min(self.keep, vocab)))
            return _only(enough | least, scores)
        # Of equal scores upstream drops the lower index first: reversed, top-k keeps the higher.
        values, reversed_indices = largest(scores[:, ::-1], self.candidates)
        likelihood = jax.nn.softmax(values, axis=-1)
        better = jnp.cumsum(likelihood, axis=-1) - likelihood
        kept = (better < self.probability) | (jnp.arange(self.candidates) < self.keep)
        last = jnp.sum(kept, axis=-1, keepdims=True) - 1
        value = jnp.take_along_axis(values, last, axis=-1)
        index = vocab - 1 - jnp.take_along_axis(reversed_indices, last, axis=-1)
        return _only(not_after(scores, value, index), scores)


@pytree
@dataclass(frozen=True)
class MinP:
    """Keeps tokens at least ``share`` times as likely as the likeliest.

    Matches ``MinPLogitsWarper``.
    """

    share: Real
    keep: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that are too unlikely."""
        likelihood = jax.nn.softmax(scores, axis=-1)
        likely = likelihood >= self.share * jnp.max(likelihood, axis=-1, keepdims=True)
        return _only_with_best(likely, scores, self.keep)


@pytree
@dataclass(frozen=True)
class TypicalP:
    """Keeps the tokens whose surprise is nearest to the expected one, up to ``probability``.

    Matches ``TypicalLogitsWarper`` (arXiv:2202.00666).
    """

    probability: Real
    keep: int = field(metadata=STATIC)
    candidates: int | None = field(default=None, metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf outside the set."""
        vocab = scores.shape[-1]
        count = min(self.candidates or vocab, vocab)
        ranked = scores if count == vocab else largest(scores, count)[0]
        total = jax.nn.logsumexp(ranked, axis=-1, keepdims=True)
        likelihood = jnp.exp(ranked - total)
        expected = jnp.sum(entr(likelihood), axis=-1, keepdims=True)
        nearness = -jnp.abs(total - ranked - expected)
        enough = value_to_reach(nearness, likelihood, self.probability)
        edge = jnp.minimum(enough, _nth_largest(nearness, self.keep))
        return _only(-jnp.abs(total - scores - expected) >= edge, scores)


@pytree
@dataclass(frozen=True)
class EpsilonCutoff:
    """Keeps tokens whose probability is at least ``epsilon``. Matches ``EpsilonLogitsWarper``."""

    epsilon: Real
    keep: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that are too unlikely."""
        likely = jax.nn.softmax(scores, axis=-1) >= self.epsilon
        return _only_with_best(likely, scores, self.keep)


@pytree
@dataclass(frozen=True)
class EtaCutoff:
    """Keeps tokens at least as likely as ``epsilon``, or less where the distribution is flat.

    Matches ``EtaLogitsWarper`` (arXiv:2210.15191).
    """

    epsilon: Real
    keep: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that are too unlikely."""
        likelihood = jax.nn.softmax(scores, axis=-1)
        entropy = jnp.sum(entr(likelihood), axis=-1, keepdims=True)
        eta = jnp.minimum(self.epsilon, jnp.sqrt(self.epsilon) * jnp.exp(-entropy))
        return _only_with_best(likelihood >= eta, scores, self.keep)


@pytree
@dataclass(frozen=True)
class Normalized:
    """Turns the scores into log-probabilities. Matches ``LogitNormalization``."""

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the log-probabilities."""
        return jax.nn.log_softmax(scores, axis=-1)


def _only(kept: Bool[Array, "rows vocab"], scores: Scores) -> Scores:
    return jnp.where(kept, scores, -jnp.inf)


def _only_with_best(kept: Bool[Array, "rows vocab"], scores: Scores, count: int) -> Scores:
    """Keeps the ``count`` best scores besides those that are ``kept``."""
    return _only(kept | (scores >= _nth_largest(scores, count)), scores)


def _nth_largest(scores: Float[Array, "rows choices"], count: int) -> Float[Array, "rows 1"]:
    """Returns the ``count``-th largest score of each row, or the smallest if there are fewer."""
    values, _ = largest(scores, min(count, scores.shape[-1]))
    return values[:, -1:]
