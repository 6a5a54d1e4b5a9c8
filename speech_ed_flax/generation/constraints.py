"""Processors that forbid or force tokens by the length of the sequence, and mend invalid scores.

Every class matches the PyTorch processor of transformers 5.23 named in its docstring.
"""

from dataclasses import dataclass

import jax.numpy as jnp

from speech_ed_flax.generation.processor import Length, Mask, Scores, Tokens, Whole
from speech_ed_flax.pytree import pytree


@pytree
@dataclass(frozen=True)
class MinimumLength:
    """Forbids the end tokens while the sequence is shorter than ``shortest`` tokens.

    Matches ``MinLengthLogitsProcessor`` and ``MinNewTokensLengthLogitsProcessor``.
    """

    shortest: Whole
    end_tokens: Mask

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, with -inf at the end tokens while the sequence is too short."""
        return jnp.where(self.end_tokens & (length < self.shortest), -jnp.inf, scores)


@pytree
@dataclass(frozen=True)
class ForcedTokens:
    """Allows only the given tokens, with score 0, when the sequence has exactly ``at`` tokens.

    Matches ``ForcedBOSTokenLogitsProcessor`` (at 1) and ``ForcedEOSTokenLogitsProcessor``
    (at ``max_length - 1``).
    """

    forced: Mask
    at: Whole

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, or 0 at the forced tokens and -inf elsewhere."""
        return jnp.where(length == self.at, jnp.where(self.forced, 0.0, -jnp.inf), scores)


@pytree
@dataclass(frozen=True)
class ValidValues:
    """Replaces NaN by 0 and infinities by the largest and lowest number.

    Matches ``InfNanRemoveLogitsProcessor``.
    """

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores without NaN and infinities."""
        return jnp.nan_to_num(scores)


@pytree
@dataclass(frozen=True)
class SuppressedTokens:
    """Forbids the given tokens everywhere. Matches ``SuppressTokensLogitsProcessor``."""

    banned: Mask

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at the given tokens."""
        return jnp.where(self.banned, -jnp.inf, scores)


@pytree
@dataclass(frozen=True)
class SuppressedTokensAtBegin:
    """Forbids the given tokens as the first free token of the sequence, at position ``begin``.

    Matches ``SuppressTokensAtBeginLogitsProcessor``.
    """

    banned: Mask
    begin: Whole

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores, with -inf at the given tokens if the sequence begins here."""
        return jnp.where(self.banned & (length == self.begin), -jnp.inf, scores)
