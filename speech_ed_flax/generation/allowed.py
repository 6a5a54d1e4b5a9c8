"""Prefix-allowed tokens: what may follow a text, by a table of sequences or by a function."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.processor import Length, Mask, Scores, Tokens, Whole
from speech_ed_flax.generation.tables import token_mask
from speech_ed_flax.generation.trie import Trie
from speech_ed_flax.pytree import STATIC, pytree
from speech_ed_flax.types import Array, Bool, Int

Allows = Callable[[int, Int[np.ndarray, " length"]], Iterable[int]]
"""``(utterance, its tokens so far) -> the tokens that may follow``, as transformers calls it."""

Allowed = Allows | Mapping[Any, Any] | Sequence[Sequence[int]]
"""A function, a nested mapping or a list of sequences: see :func:`allowed_tokens`."""


@pytree
@dataclass(frozen=True)
class AllowedSequences:
    """Allows only texts that are one of the given sequences, followed by an end token.

    Does what ``PrefixConstrainedLogitsProcessor`` does with a function that looks the text up in a
    trie, inside the compiled loop. What lies before ``start`` (the prompt, and a forced first
    token) is free; a text that left the table may only end.
    """

    trie: Trie
    end_tokens: Mask
    start: Whole
    beams: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that may not follow."""
        node = self.trie.walk(tokens, self.start, length)
        allowed = jax.vmap(lambda row: self.trie.followers(row, scores.shape[-1]))(node)
        allowed = allowed | (self.trie.is_complete(node)[:, None] & self.end_tokens)
        return restrict(scores, allowed | (length < self.start), self.beams)


@pytree
@dataclass(frozen=True)
class AllowedByFunction:
    """Allows only the tokens that a function on the host returns for each text.

    Matches ``PrefixConstrainedLogitsProcessor``. The function is called for every row of every
    step, between which the device waits: :class:`AllowedSequences` is far faster.
    """

    function: Allows = field(metadata=STATIC)
    beams: int = field(metadata=STATIC)

    def __call__(self, tokens: Tokens, scores: Scores, length: Length) -> Scores:
        """Returns the scores with -inf at tokens that may not follow."""
        shape = jax.ShapeDtypeStruct(scores.shape, jnp.bool_)
        ask = partial(self._ask, vocab=scores.shape[-1])
        return restrict(scores, jax.pure_callback(ask, shape, tokens, length), self.beams)

    def _ask(self, tokens: Any, length: Any, vocab: int) -> Bool[np.ndarray, "rows vocab"]:
        """Calls the function for every row; raises ConfigError if it allows nothing after one."""
        texts = np.asarray(tokens)[:, : int(length)]
        allowed = np.zeros((len(texts), vocab), bool)
        for row, text in enumerate(texts):
            utterance = row // self.beams
            followers = list(self.function(utterance, text))
            if not followers:
                raise ConfigError(
                    f"prefix_allowed_tokens_fn allows nothing after {text.tolist()} in utterance "
                    f"{utterance}: return at least one token, such as the end token."
                )
            allowed[row, followers] = True
        return allowed


def allowed_tokens(
    given: Allowed,
    start: int,
    end_tokens: Sequence[int],
    vocab: int,
    beams: int,
) -> AllowedSequences | AllowedByFunction:
    """Makes the processor of a function, of sequences of tokens, or of a nested mapping of them.

    Args:
        given: a function as transformers takes it; or the sequences that may follow the first
            ``start`` tokens, without end token; or the same as a trie ``{token: {token: ...}}``
            in which an empty mapping, or the key None, completes a sequence.
        start: number of free tokens at the beginning. A function sees and decides them too.
        end_tokens: one of them follows a complete sequence.
        vocab: size of the vocabulary.
        beams: rows of an utterance.

    Raises:
        ConfigError: the sequences are empty, hold an id beyond the vocabulary, or cannot end.
    """
    if callable(given):
        return AllowedByFunction(given, beams)
    if not end_tokens:
        raise ConfigError("Allowed sequences end with an end token: set eos_token_id.")
    return AllowedSequences(Trie.of(given, vocab), token_mask(end_tokens, vocab), start, beams)


def restrict(scores: Scores, allowed: Bool[Array, "rows vocab"], beams: int) -> Scores:
    """Returns the scores with -inf where not ``allowed``.

    As upstream, an utterance all of whose beams are left with nothing, because other processors
    forbade all that is allowed, gets score 0 wherever allowed: the constraint holds.
    """
    restricted = jnp.where(allowed, scores, -jnp.inf)
    nothing = jnp.all(jnp.isneginf(restricted).reshape(-1, beams * scores.shape[-1]), axis=-1)
    forced = jnp.where(allowed, 0.0, -jnp.inf)
    return jnp.where(jnp.repeat(nothing, beams)[:, None], forced, restricted)
