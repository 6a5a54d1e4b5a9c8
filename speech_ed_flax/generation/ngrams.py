"""Processors that forbid to repeat n-grams, of the text itself or of what the encoder read."""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.generation.processor import Length, Scores, Tokens
from speech_ed_flax.pytree import STATIC, pytree
from speech_ed_flax.types import Array, Bool, Int


@pytree
@dataclass(frozen=True)
class NoRepeatNgram:
    """Forbids every token that would complete an n-gram already present, prompt included.

    Matches ``NoRepeatNGramLogitsProcessor``.
    """

    size: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that would repeat an n-gram."""
        # A window counts only if its last token is text, which also rules out short histories.
        is_text = jnp.arange(self.size - 1, tokens.shape[1]) < length
        return _forbid_completions(self.size, tokens, is_text, tokens, scores, length)


@pytree
@dataclass(frozen=True)
class EncoderNoRepeatNgram:
    """Forbids every token that would complete an n-gram of what the encoder read.

    Matches ``EncoderNoRepeatNGramLogitsProcessor``.
    """

    size: int = field(metadata=STATIC)
    encoder_tokens: Int[Any, "batch encoder_length"]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that would repeat an n-gram of the encoder."""
        copies = scores.shape[0] // self.encoder_tokens.shape[0]
        source = jnp.repeat(self.encoder_tokens, copies, axis=0)
        is_long_enough = length >= self.size - 1
        return _forbid_completions(self.size, source, is_long_enough, tokens, scores, length)


def _forbid_completions(
    size: int,
    source: Int[Array, "rows source"],
    counts: Bool[Array, " windows"] | Bool[Array, ""],
    tokens: Tokens,
    scores: Scores,
    length: Length,
) -> Scores:
    """Forbids the last token of each n-gram of ``source`` whose other tokens end the text.

    Mapped over rows rather than indexed by them, which needs no exchange when rows are sharded.

    Args:
        size: tokens in an n-gram.
        source: where n-grams are taken from.
        counts: which windows of ``source`` are n-grams.
        tokens: the text, ``length`` tokens of it.
        scores: of the next token.
        length: of the text.
    """
    before = size - 1
    windows = source.shape[1] - before
    if windows <= 0 or before > tokens.shape[1]:
        return scores
    ending = lax.dynamic_slice_in_dim(tokens, length - before, before, axis=1)
    repeats = jnp.broadcast_to(counts, (source.shape[0], windows))
    for offset in range(before):
        repeats = repeats & (source[:, offset : offset + windows] == ending[:, offset, None])
    banned = jnp.where(repeats, source[:, before:], scores.shape[-1])
    return jax.vmap(lambda row, token: row.at[token].set(-jnp.inf, mode="drop"))(scores, banned)
