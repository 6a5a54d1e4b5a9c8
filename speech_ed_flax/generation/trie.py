"""A trie of token sequences as tables of integers, walked inside a compiled function.

Nodes are numbered breadth first, the root 0, so that the edge at index ``i`` leads to node
``i + 1`` and the edges that leave a node lie side by side. Edges are found by bisection: a step
costs the length of the text times the logarithm of the number of edges, plus the largest number of
tokens that may follow one node, whatever the size of the trie.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.processor import Length, Tokens, Whole
from speech_ed_flax.generation.tables import padded, power_of_two
from speech_ed_flax.pytree import STATIC, pytree
from speech_ed_flax.types import Array, Bool, Int


@pytree
@dataclass(frozen=True)
class Trie:
    """Holds sequences of tokens by their common beginnings.

    Tables are padded to powers of two: another trie of about the same size compiles nothing anew.

    Attributes:
        edge_tokens: the token of each edge.
        first_edges: the index of the first edge of each node and, one further, its end.
        complete: whether a sequence ends at a node; the last node is where all others lead.
        fan_out: the largest number of edges that leave one node.
    """

    edge_tokens: Int[Any, " edges"]
    first_edges: Int[Any, " nodes_and_end"]
    complete: Bool[Any, " nodes"]
    fan_out: int = field(metadata=STATIC)

    @classmethod
    def of(cls, sequences: Mapping[Any, Any] | Sequence[Sequence[int]], vocab: int) -> "Trie":
        """Makes a trie of sequences, or of a nested mapping ``{token: {token: ...}}``.

        An empty mapping completes a sequence; in another one the key None says the same.

        Raises:
            ConfigError: there is no sequence, or one holds an id beyond the vocabulary.
        """
        parents, tokens, complete = _edges(
            sequences if isinstance(sequences, Mapping) else _nested(sequences)
        )
        if not tokens:
            raise ConfigError("The allowed sequences are empty: give at least one token sequence.")
        beyond = [token for token in tokens if not 0 <= token < vocab]
        if beyond:
            raise ConfigError(
                f"The allowed sequences hold {beyond[0]} but the vocabulary ends at {vocab - 1}: "
                "correct the id."
            )
        return cls._of_edges(np.array(parents), np.array(tokens), np.array(complete), vocab)

    @classmethod
    def _of_edges(
        cls, parents: np.ndarray, tokens: np.ndarray, complete: np.ndarray, vocab: int
    ) -> "Trie":
        edges = power_of_two(len(tokens))
        counts = np.bincount(parents, minlength=edges + 2)
        return cls(
            edge_tokens=padded(tokens.astype(np.int32), vocab),
            first_edges=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            complete=np.pad(complete, (0, edges + 2 - len(complete)), constant_values=True),
            fan_out=power_of_two(int(counts.max())),
        )

    def walk(self, tokens: Tokens, start: Whole, length: Length) -> Int[Array, " rows"]:
        """Returns the node that each row's tokens from ``start`` to ``length`` lead to."""

        def follow(position: Int[Array, ""], node: Int[Array, " rows"]) -> Int[Array, " rows"]:
            token = lax.dynamic_index_in_dim(tokens, position, axis=1, keepdims=False)
            return self._child(node, token)

        return lax.fori_loop(start, length, follow, jnp.zeros(tokens.shape[0], jnp.int32))

    def _child(self, node: Int[Array, " rows"], token: Int[Array, " rows"]) -> Int[Array, " rows"]:
        """Returns the node to which a token leads, or the last one."""
        end = jnp.take(self.first_edges, node + 1)
        # The last edge of the node with a smaller token; the one before its first, if none has.
        smaller = jnp.take(self.first_edges, node) - 1
        step = self.fan_out
        while step:
            further = smaller + step
            is_smaller = jnp.take(self.edge_tokens, further, mode="clip") < token
            smaller = jnp.where((further < end) & is_smaller, further, smaller)
            step //= 2
        found = jnp.take(self.edge_tokens, smaller + 1, mode="clip") == token
        astray = self.complete.shape[0] - 1
        return jnp.where((smaller + 1 < end) & found, smaller + 2, astray)

    def followers(self, node: Int[Array, ""], vocab: int) -> Bool[Array, " vocab"]:
        """Returns the tokens that lead on from a node."""
        edges = jnp.take(self.first_edges, node) + jnp.arange(self.fan_out)
        own = edges < jnp.take(self.first_edges, node + 1)
        tokens = jnp.where(own, jnp.take(self.edge_tokens, edges, mode="clip"), vocab)
        return jnp.zeros(vocab, bool).at[tokens].set(True, mode="drop")

    def is_complete(self, node: Int[Array, " rows"]) -> Bool[Array, " rows"]:
        """Returns whether a sequence ends at each node."""
        return jnp.take(self.complete, node)


def _nested(sequences: Sequence[Sequence[int]]) -> dict[int | None, Any]:
    """Returns sequences as a nested mapping, with the key None where one is complete."""
    root: dict[int | None, Any] = {}
    for sequence in sequences:
        node = root
        for token in sequence:
            node = node.setdefault(int(token), {})
        node[None] = {}
    return root


def _edges(root: Mapping[Any, Any]) -> tuple[list[int], list[int], list[bool]]:
    """Returns parent and token of each edge, in order, and whether each node is complete."""
    parents: list[int] = []
    tokens: list[int] = []
    complete: list[bool] = []
    waiting = deque([root])
    while waiting:
        children = waiting.popleft()
        node = len(complete)
        complete.append(not children or None in children)
        for token in sorted(token for token in children if token is not None):
            parents.append(node)
            tokens.append(token)
            waiting.append(children[token])
    return parents, tokens, complete
