"""Strings that end a sequence, as a table that the compiled loop reads.

An automaton walks over the bytes of the text (Aho and Corasick, 1975). Walking it over the bytes
of every token in advance gives the next state for each state and token, so that the loop takes one
entry of a table per row and step, and the host sees nothing until the end.

Matches ``StopStringCriteria`` of transformers 5.23: a sequence stops with the token in which some
string ends, wherever inside of the token that is; a string may begin in the prompt.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from speech_ed_flax.pytree import pytree
from speech_ed_flax.types import Array, Bool, Int

STATES = 32
"""The number of states is a multiple of this, so that other strings compile nothing anew."""


@pytree
@dataclass(frozen=True)
class StopStrings:
    """Knows, for each state of the text so far and each token, the next state.

    Attributes:
        transitions: the next state; ``~state`` (negative) if some string ends within the token.
    """

    transitions: Int[Array, "states vocab"]

    @classmethod
    def of(cls, strings: Sequence[str], texts: Sequence[bytes], vocab: int) -> StopStrings:
        """Builds the table.

        Args:
            strings: each of which ends a sequence.
            texts: of every token of the tokenizer.
            vocab: tokens that the model scores; those without a text are empty.
        """
        moves, ends = _automaton([string.encode() for string in strings])
        table = _walk(moves, ends, [*texts, *[b""] * vocab][:vocab])
        small = len(table) <= 1 << 15
        return cls(jnp.asarray(table, jnp.int16 if small else jnp.int32))

    def start(self, prompt: Int[Array, "*rows prompt"]) -> Int[Array, "*rows"]:
        """Returns the states after a prompt, whose own text ends nothing."""
        states = jnp.zeros(prompt.shape[:-1], jnp.int32)
        for index in range(prompt.shape[-1]):
            states, _ = self.advance(states, prompt[..., index])
        return states

    def advance(
        self, states: Int[Array, "*rows"], tokens: Int[Array, "*rows"]
    ) -> tuple[Int[Array, "*rows"], Bool[Array, "*rows"]]:
        """Returns the states after one more token, and whether a string ended in it."""
        moved = self.transitions[states, tokens].astype(jnp.int32)
        return jnp.where(moved < 0, ~moved, moved), moved < 0


def token_texts(tokenizer: Any) -> list[bytes]:
    """Returns what each token adds to a text, in UTF-8 (of which a token may hold a part).

    A word in front of it keeps a tokenizer from dropping the space that a token begins with.
    """
    plain, (in_front, before) = _byte_decoder(tokenizer), _word(tokenizer)
    vocabulary = tokenizer.get_vocab()
    texts = [b""] * (max(vocabulary.values()) + 1)
    for token, index in vocabulary.items():
        text = plain(token)
        if text is None:
            whole = tokenizer.convert_tokens_to_string([*before, token])
            text = whole[whole.index(in_front) + len(in_front) :].encode()
        texts[index] = text
    return texts


def _word(tokenizer: Any) -> tuple[str, list[str]]:
    """Returns a word and its tokens; one of its own where a tokenizer knows no others."""
    word = "abcdef"
    tokens = tokenizer.convert_ids_to_tokens(tokenizer(word, add_special_tokens=False).input_ids)
    if word not in tokenizer.convert_tokens_to_string(tokens):
        special, write = set(tokenizer.all_special_tokens), tokenizer.convert_tokens_to_string
        # A space is no word: behind it, spaces are dropped. A vocabulary has no order of its own.
        own = (token for token in sorted(tokenizer.get_vocab()) if token not in special)
        tokens = [next(token for token in own if write([token]).strip())]
    return tokenizer.convert_tokens_to_string(tokens).strip(), tokens


def _byte_decoder(tokenizer: Any) -> Any:
    """Returns a function from a token to its bytes; None where the token does not spell bytes."""
    decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
    if "ByteFallback" in decoder:
        return lambda token: (
            bytes([int(token[3:5], 16)]) if len(token) == 6 and token[:3] == "<0x" else None
        )
    if "ByteLevel" in decoder:
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        spelled = {character: byte for byte, character in bytes_to_unicode().items()}
        return lambda token: (
            bytes(spelled[c] for c in token) if all(c in spelled for c in token) else None
        )
    return lambda token: None


def _automaton(
    strings: Sequence[bytes],
) -> tuple[Int[np.ndarray, "states 256"], Bool[np.ndarray, " states"]]:
    """Returns the next state for each state and byte, and which states have read a string.

    A state is the longest end of the text that some string begins with; state 0 is none.
    """
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for string in strings:
        state = 0
        for byte in string:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
                ends.append(False)
            state = children[state][byte]
        ends[state] = True
    moves = np.zeros((len(children), 256), np.int32)
    waiting = deque([(0, 0)])  # states in order of depth, with their longest proper end
    while waiting:
        state, shorter = waiting.popleft()
        ends[state] |= ends[shorter]
        if state:
            moves[state] = moves[shorter]
        for byte, child in children[state].items():
            waiting.append((child, moves[state, byte]))
            moves[state, byte] = child
    return moves, np.array(ends)


def _walk(
    moves: Int[np.ndarray, "states 256"],
    ends: Bool[np.ndarray, " states"],
    texts: Sequence[bytes],
) -> Int[np.ndarray, "padded vocab"]:
    """Walks the automaton over all tokens at once, from every state."""
    longest = max(map(len, texts))
    spelled = np.zeros((len(texts), longest), np.uint8)
    lengths = np.array([len(text) for text in texts])
    for row, text in enumerate(texts):
        spelled[row, : len(text)] = np.frombuffer(text, np.uint8)
    padded = -(-len(moves) // STATES) * STATES
    states = np.zeros((padded, len(texts)), np.int32)
    states[: len(moves)] = np.arange(len(moves))[:, None]
    ended = np.zeros(states.shape, bool)
    for index in range(longest):
        there = np.flatnonzero(lengths > index)
        states[:, there] = moves[states[:, there], spelled[there, index]]
        ended[:, there] |= ends[states[:, there]]
    return np.where(ended, ~states, states)
