"""Processors that change scores without forbidding anything, each named after what it favours.

Every class matches the PyTorch processor of transformers 5.23 named in its docstring.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.generation.processor import Length, Mask, Real, Scores, Tokens
from speech_ed_flax.generation.tables import padded, power_of_two
from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Float, Int


@pytree
@dataclass(frozen=True)
class RepetitionPenalty:
    """Divides positive and multiplies negative scores of every token seen so far, prompt included.

    Matches ``RepetitionPenaltyLogitsProcessor`` (the penalty of CTRL, arXiv:1909.05858).
    """

    penalty: Real

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with the penalty applied once to each token seen."""
        seen = jnp.where(jnp.arange(tokens.shape[1]) < length, tokens, scores.shape[-1])
        return _penalize(scores, seen, self.penalty)


@pytree
@dataclass(frozen=True)
class EncoderRepetitionPenalty:
    """Divides negative and multiplies positive scores of every token the encoder read.

    Matches ``EncoderRepetitionPenaltyLogitsProcessor``, which penalizes by the reciprocal of its
    penalty: above 1 it is a bonus.
    """

    reciprocal: Real
    encoder_tokens: Int[Any, "batch encoder_length"]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with the bonus applied once to each token of the encoder."""
        seen = jnp.repeat(
            self.encoder_tokens, scores.shape[0] // self.encoder_tokens.shape[0], axis=0
        )
        return _penalize(scores, seen, self.reciprocal)


@pytree
@dataclass(frozen=True)
class SequenceBias:
    """Adds a bias to the last token of each sequence wherever the tokens before it end the text.

    Matches ``SequenceBiasLogitsProcessor``, and ``NoBadWordsLogitsProcessor`` with biases of -inf.
    Made by :func:`sequence_bias`. Of the longer sequences, each length has its own two tables:
    sequences ``[sequences, size]`` and their biases.
    """

    single: Float[Any, " vocab"]
    longer: tuple[tuple[Int[Any, "_ _"], Float[Any, " _"]], ...]

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores plus the biases of all sequences that the next token may complete."""
        bias = jnp.broadcast_to(jnp.asarray(self.single), scores.shape)
        for sequences, biases in self.longer:
            before = sequences.shape[1] - 1
            if before > tokens.shape[1]:
                continue
            ending = lax.dynamic_slice_in_dim(tokens, length - before, before, axis=1)
            completes = jnp.all(ending[:, None, :] == sequences[None, :, :-1], axis=-1)
            completes = completes & (length >= before)  # [rows, sequences]
            bias = bias.at[:, sequences[:, -1]].add(jnp.where(completes, biases, 0.0), mode="drop")
        return scores + bias


def sequence_bias(biases: tuple[tuple[tuple[int, ...], float], ...], vocab: int) -> SequenceBias:
    """Makes the tables of a bias for each sequence of tokens."""
    single = np.zeros(vocab, np.float32)
    by_size: dict[int, list[tuple[tuple[int, ...], float]]] = {}
    for sequence, bias in biases:
        by_size.setdefault(len(sequence), []).append((sequence, bias))
    for (token,), bias in by_size.pop(1, []):
        if token < vocab:
            single[token] = bias
    # A padded row ends in a token beyond the vocabulary, to which nothing is added.
    longer = tuple(
        (
            padded(np.array([sequence for sequence, _ in group], np.int32), vocab),
            padded(np.array([bias for _, bias in group], np.float32), 0.0),
        )
        for _, group in sorted(by_size.items())
    )
    return SequenceBias(single, longer)


@pytree
@dataclass(frozen=True)
class EndGrowth:
    """Raises the scores of the end tokens by a share of their size that grows with the length.

    Matches ``ExponentialDecayLengthPenalty``. Made by :func:`end_growth`.
    """

    growth: Float[Any, " lengths"]
    end_tokens: Mask

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, raised at the end tokens unless those are infinite."""
        raised = self.end_tokens & jnp.isfinite(scores)
        growth = jnp.take(self.growth, length, mode="clip")
        return jnp.where(raised, scores + jnp.abs(scores) * growth, scores)


def end_growth(start: int, factor: float, end_tokens: Mask, max_length: int) -> EndGrowth:
    """Makes the table of growth, which is ``factor ** n - 1`` at n tokens more than ``start``.

    The powers are computed in float64 as upstream does, for every length up to ``max_length``.
    """
    beyond = np.maximum(np.arange(power_of_two(max_length), dtype=np.float64) - start, 0)
    with np.errstate(over="ignore"):
        growth = np.minimum(factor**beyond - 1, np.finfo(np.float32).max)
    return EndGrowth(growth.astype(np.float32), end_tokens)


def _penalize(
    scores: Scores, tokens: Int[Array, "rows some"], penalty: Real
) -> Float[Array, "rows vocab"]:
    """Divides positive and multiplies negative scores of tokens, each once however often given.

    Mapped over rows rather than indexed by them, which needs no exchange when rows are sharded. A
    token beyond the vocabulary changes nothing.
    """
    score = jnp.take_along_axis(scores, tokens, axis=1, mode="clip")
    score = jnp.where(score < 0, score * penalty, score / penalty)
    return jax.vmap(lambda row, token, value: row.at[token].set(value, mode="drop"))(
        scores, tokens, score
    )
