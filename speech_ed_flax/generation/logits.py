"""Logits processors: what may be generated next, as masks and changes of the scores.

A processor is any callable ``processor(tokens, scores, length) -> scores``, the signature that the
Flax processors of transformers 4.x had, so those and a user's own fit. ``tokens`` has a static
length; positions from ``length`` on are padding and must not be read as text. Every class here
matches the PyTorch processor of transformers 5.23 named in its docstring.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.types import Array, Bool, Float, Int

Tokens = Int[Array, "rows max_length"]
Scores = Float[Array, "rows vocab"]
Length = Int[Array, ""]

Processor = Callable[[Array, Array, Array], Array]
"""``(tokens [rows, max_length], scores [rows, vocab], length []) -> scores [rows, vocab]``."""


def processors(
    settings: GenerationSettings, prompt_length: int, custom: tuple[Processor, ...] = ()
) -> tuple[Processor, ...]:
    """Builds the processors that the settings ask for, in upstream's order, ``custom`` last."""
    chosen: list[Processor] = []
    if settings.repetition_penalty != 1.0:
        chosen.append(RepetitionPenalty(settings.repetition_penalty))
    if settings.no_repeat_ngram_size > 0:
        chosen.append(NoRepeatNgram(settings.no_repeat_ngram_size))
    if settings.bad_words_ids:
        chosen.append(BadWords(_without_end_tokens(settings)))
    # Two minima in upstream, both counted from the first token; the larger one decides.
    shortest = max(settings.min_length, prompt_length + settings.min_new_tokens)
    if settings.eos_token_id and shortest > prompt_length:
        chosen.append(MinimumLength(shortest, settings.eos_token_id))
    if settings.forced_bos_token_id is not None:
        chosen.append(ForcedTokens((settings.forced_bos_token_id,), 1))
    if settings.forced_eos:
        chosen.append(ForcedTokens(settings.forced_eos, settings.max_length - 1))
    if settings.suppress_tokens:
        chosen.append(SuppressedTokens(settings.suppress_tokens))
    if settings.begin_suppress_tokens:
        forced_first = prompt_length == 1 and settings.forced_bos_token_id is not None
        begin = prompt_length + int(forced_first)
        chosen.append(SuppressedTokensAtBegin(settings.begin_suppress_tokens, begin))
    return (*chosen, *custom)


def warpers(settings: GenerationSettings) -> tuple[Processor, ...]:
    """Builds the processors that shape the distribution of a sampled token; none for greedy."""
    if not settings.do_sample:
        return ()
    # Beams must keep one continuation that does not end besides every end token.
    keep = max(2, 1 + len(settings.eos_token_id)) if settings.num_beams > 1 else 1
    top_k = max(settings.top_k, keep) if settings.top_k > 0 else None
    chosen: list[Processor] = []
    if settings.temperature != 1.0:
        chosen.append(Temperature(settings.temperature))
    if top_k is not None:
        chosen.append(TopK(top_k))
    if settings.top_p < 1.0:
        chosen.append(TopP(settings.top_p, keep, top_k))
    return tuple(chosen)


def largest(
    scores: Float[Array, "*batch choices"], count: int
) -> tuple[Float[Array, "*batch count"], Int[Array, "*batch count"]]:
    """Returns the ``count`` largest scores, in descending order, and their indices.

    The barrier keeps XLA on CPU from turning a sliced or fused top-k into a full sort, which is
    about a hundred times slower over a vocabulary.
    """
    return tuple(lax.optimization_barrier(lax.top_k(scores, count)))


@dataclass(frozen=True)
class RepetitionPenalty:
    """Divides positive and multiplies negative scores of every token seen so far, prompt included.

    Matches ``RepetitionPenaltyLogitsProcessor`` (the penalty of CTRL, arXiv:1909.05858).
    """

    penalty: float

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with the penalty applied once to each token seen."""
        seen = jnp.where(jnp.arange(tokens.shape[1]) < length, tokens, scores.shape[-1])
        score = jnp.take_along_axis(scores, seen, axis=1, mode="clip")
        score = jnp.where(score < 0, score * self.penalty, score / self.penalty)
        return _replace(scores, seen, score)


@dataclass(frozen=True)
class NoRepeatNgram:
    """Forbids every token that would complete an n-gram already present, prompt included.

    Matches ``NoRepeatNGramLogitsProcessor``.
    """

    size: int

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that would repeat an n-gram."""
        before = self.size - 1
        windows = tokens.shape[1] - before
        if windows <= 0:
            return scores
        prefix = lax.dynamic_slice_in_dim(tokens, length - before, before, axis=1)
        # A window counts only if its last token is text, which also rules out short histories.
        repeats = jnp.arange(windows) + before < length
        for offset in range(before):
            window_token = tokens[:, offset : offset + windows]
            repeats = repeats & (window_token == prefix[:, offset, None])
        banned = jnp.where(repeats, tokens[:, before:], scores.shape[-1])
        return _replace(scores, banned, jnp.full(banned.shape, -jnp.inf))


@dataclass(frozen=True)
class BadWords:
    """Forbids the last token of each word wherever the tokens before it end the sequence.

    Matches ``NoBadWordsLogitsProcessor``; words of one token are forbidden everywhere.
    """

    words: tuple[tuple[int, ...], ...]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that would complete a word."""
        for size in sorted({len(word) for word in self.words}):
            words = np.array([word for word in self.words if len(word) == size], np.int32)
            if size - 1 > tokens.shape[1]:
                continue
            ending = lax.dynamic_slice_in_dim(tokens, length - (size - 1), size - 1, axis=1)
            completes = jnp.all(ending[:, None, :] == words[None, :, :-1], axis=-1)
            completes = completes & (length >= size - 1)  # [rows, words]
            banned = jnp.where(completes, -jnp.inf, jnp.inf)
            scores = scores.at[:, words[:, -1]].min(banned)
        return scores


@dataclass(frozen=True)
class MinimumLength:
    """Forbids the end tokens while the sequence is shorter than ``shortest`` tokens.

    Matches ``MinLengthLogitsProcessor`` and ``MinNewTokensLengthLogitsProcessor``.
    """

    shortest: int
    end_tokens: tuple[int, ...]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, with -inf at the end tokens while the sequence is too short."""
        banned = _members(self.end_tokens, scores) & (length < self.shortest)
        return jnp.where(banned, -jnp.inf, scores)


@dataclass(frozen=True)
class ForcedTokens:
    """Allows only the given tokens, with score 0, when the sequence has exactly ``at`` tokens.

    Matches ``ForcedBOSTokenLogitsProcessor`` (at 1) and ``ForcedEOSTokenLogitsProcessor``
    (at ``max_length - 1``).
    """

    forced: tuple[int, ...]
    at: int

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, or 0 at the forced tokens and -inf elsewhere."""
        only = jnp.where(_members(self.forced, scores), 0.0, -jnp.inf)
        return jnp.where(length == self.at, only, scores)


@dataclass(frozen=True)
class SuppressedTokens:
    """Forbids the given tokens everywhere. Matches ``SuppressTokensLogitsProcessor``."""

    banned: tuple[int, ...]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at the given tokens."""
        return jnp.where(_members(self.banned, scores), -jnp.inf, scores)


@dataclass(frozen=True)
class SuppressedTokensAtBegin:
    """Forbids the given tokens as the first free token of the sequence, at position ``begin``.

    Matches ``SuppressTokensAtBeginLogitsProcessor``.
    """

    banned: tuple[int, ...]
    begin: int

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, with -inf at the given tokens if the sequence begins here."""
        banned = _members(self.banned, scores) & (length == self.begin)
        return jnp.where(banned, -jnp.inf, scores)


@dataclass(frozen=True)
class Temperature:
    """Divides the scores by a temperature. Matches ``TemperatureLogitsWarper``."""

    temperature: float

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores divided by the temperature."""
        return scores / self.temperature


@dataclass(frozen=True)
class TopK:
    """Keeps the ``count`` largest scores and whatever equals the last of them.

    Matches ``TopKLogitsWarper``.
    """

    count: int

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf below the ``count``-th largest."""
        values, _ = largest(scores, min(self.count, scores.shape[-1]))
        return jnp.where(scores < values[:, -1:], -jnp.inf, scores)


@dataclass(frozen=True)
class TopP:
    """Keeps the smallest set of likeliest tokens whose probability reaches ``probability``.

    Matches ``TopPLogitsWarper``. At least ``keep`` tokens stay.

    ``candidates`` is how many tokens a TopK before it left alive (None: all). Ranking only those
    spares a sort of the vocabulary. Where more than that tie at TopK's threshold, the surplus,
    which upstream ranks lowest, goes.
    """

    probability: float
    keep: int
    candidates: int | None = None

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf outside the set."""
        vocab = scores.shape[-1]
        count = vocab if self.candidates is None else min(self.candidates, vocab)
        # Of equal scores upstream drops the lower index first: reversed, top-k keeps the higher.
        values, reversed_indices = largest(scores[:, ::-1], count)
        likelihood = jnp.exp(values - jax.nn.logsumexp(scores, axis=-1, keepdims=True))
        better = jnp.cumsum(likelihood, axis=-1) - likelihood
        kept = (better < self.probability) | (jnp.arange(count) < self.keep)
        nothing = jnp.full_like(scores, -jnp.inf)
        return _replace(nothing, vocab - 1 - reversed_indices, jnp.where(kept, values, -jnp.inf))


def _replace(
    scores: Scores, tokens: Int[Array, "rows some"], values: Float[Array, "rows some"]
) -> Scores:
    """Sets the scores of each row's own tokens; a token beyond the vocabulary sets nothing.

    Mapped over rows rather than indexed by them, which needs no exchange when rows are sharded.
    """
    return jax.vmap(lambda row, token, value: row.at[token].set(value, mode="drop"))(
        scores, tokens, values
    )


def _members(tokens: tuple[int, ...], scores: Scores) -> Bool[np.ndarray, " vocab"]:
    """Returns a constant mask of the vocabulary, True at ``tokens``; ids beyond it are ignored."""
    return np.isin(np.arange(scores.shape[-1]), tokens)


def _without_end_tokens(settings: GenerationSettings) -> tuple[tuple[int, ...], ...]:
    """Returns the bad words without those that are a single end token, which upstream allows."""
    ends = {(token,) for token in settings.eos_token_id}
    return tuple(word for word in settings.bad_words_ids if word not in ends)
