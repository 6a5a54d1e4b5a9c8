"""What may follow a text: a table of sequences does what a function on the host does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.allowed import allowed_tokens
from speech_ed_flax.generation.trie import Trie

torch = pytest.importorskip("torch")
from processing import (  # noqa: E402
    ROWS,
    VOCAB,
    assert_same,
    history,
    ours,
    random_scores,
    theirs,
)
from transformers.generation import logits_process as upstream  # noqa: E402

ENDS = (2, 9)
SEQUENCES = [(4, 4), (3,), (4, 1, 0, 22), (0, 1), (0, 1, 2), (1,), (3, 3, 3, 3, 3, 3)]
START = 2  # tokens before the first allowed one


def look_up(utterance: int, text) -> list[int]:
    """Does what the table does, as one would write it for transformers."""
    if len(text) < START:
        return list(range(VOCAB))
    given = tuple(int(token) for token in text[START:])
    followers = {s[len(given)] for s in SEQUENCES if s[: len(given)] == given and s != given}
    begun = any(s[: len(given)] == given for s in SEQUENCES)
    ended = given in SEQUENCES or not begun
    return sorted(followers | set(ENDS if ended else ()))


def texts(seed: int) -> np.ndarray:
    """Draws texts of which most follow a sequence for a while."""
    random = np.random.default_rng(seed)
    tokens = history(seed)
    for row in tokens:
        sequence = SEQUENCES[random.integers(len(SEQUENCES))]
        row[START : START + len(sequence)] = sequence
    return tokens


@pytest.mark.parametrize("beams", [1, 3, ROWS])
@pytest.mark.parametrize("form", ["table", "function"])
def test_allowed_tokens_equal_upstream(form, beams):
    given = SEQUENCES if form == "table" else look_up
    processor = allowed_tokens(given, START, ENDS, VOCAB, beams)
    reference = upstream.PrefixConstrainedLogitsProcessor(look_up, beams)
    for length in (1, 2, 3, 4, 5, 6, 8, 9, 13):
        for seed in range(4):
            tokens, scores = texts(seed), random_scores(seed)
            if seed > 1:  # much is already forbidden: sometimes all that is allowed
                scores[:, :3] = scores[:, 4:] = -np.inf
            assert_same(
                ours(processor, tokens, scores, length), theirs(reference, tokens, scores, length)
            )


def test_a_function_sees_the_utterance_and_only_its_text():
    seen = []

    def function(utterance, text):
        seen.append((utterance, text.tolist()))
        return [utterance]

    tokens = history(0)
    processor = allowed_tokens(function, 1, ENDS, VOCAB, 3)
    got = ours(processor, tokens, random_scores(0), 4)
    assert seen == [(row // 3, tokens[row, :4].tolist()) for row in range(ROWS)]
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in got] == [[0]] * 3 + [[1]] * 3


def test_a_function_that_allows_nothing_is_named():
    processor = allowed_tokens(lambda utterance, text: [], 1, ENDS, VOCAB, 1)
    with pytest.raises(jax.errors.JaxRuntimeError, match="prefix_allowed_tokens_fn allows nothing"):
        ours(processor, history(0), random_scores(0), 3)


def test_a_nested_mapping_is_the_table_of_its_sequences():
    nested = {4: {4: {}, 1: {0: {22: {}}}}, 3: {None: {}, 3: {}}, 1: {}}
    sequences = [(4, 4), (4, 1, 0, 22), (3,), (3, 3), (1,)]
    for one, other in zip(
        jax.tree.leaves(Trie.of(nested, VOCAB)),
        jax.tree.leaves(Trie.of(sequences, VOCAB)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_table_of_many_sequences_finds_every_follower():
    random = np.random.default_rng(0)
    vocab, sizes = 1000, random.integers(1, 6, 3000)
    sequences = [tuple(random.integers(0, vocab, size).tolist()) for size in sizes]
    trie = Trie.of(sequences, vocab)
    tokens = np.zeros((200, 6), np.int32)
    for row, sequence in zip(tokens, sequences, strict=False):
        row[: len(sequence)] = sequence

    @jax.jit
    def read(trie, tokens, length):
        node = trie.walk(tokens, jnp.int32(0), length)
        followers = jax.vmap(lambda row: trie.followers(row, vocab))(node)
        return followers, trie.is_complete(node)

    for length in (0, 1, 2):
        followers, complete = read(trie, tokens, jnp.int32(length))
        for row, text in enumerate(tokens[:, :length].tolist()):
            begun = [s for s in sequences if s[:length] == tuple(text)]
            expected = {s[length] for s in begun if len(s) > length}
            assert set(np.flatnonzero(followers[row]).tolist()) == expected
            assert complete[row] == (not begun or tuple(text) in begun)


def test_another_table_of_about_the_same_size_does_not_trace_again():
    traces = 0

    @jax.jit
    def apply(processor, tokens, scores, length):
        nonlocal traces
        traces += 1
        return processor(tokens, scores, length)

    for sequences in ([(1, 2), (3, 4, 5)], [(7, 7, 7), (8, 1)], [(5, 4, 3, 2), (5, 1)]):
        processor = allowed_tokens(sequences, 1, ENDS, VOCAB, 1)
        apply(processor, jnp.asarray(history(0)), jnp.asarray(random_scores(0)), jnp.int32(2))
    assert traces == 1


@pytest.mark.parametrize(
    ("sequences", "ends", "message"),
    [
        ([], ENDS, "empty"),
        ([()], ENDS, "empty"),
        ([(1, VOCAB)], ENDS, f"{VOCAB}"),
        ([(1, -1)], ENDS, "-1"),
        ([(1,)], (), "eos_token_id"),
    ],
)
def test_sequences_that_cannot_be_used_are_refused(sequences, ends, message):
    with pytest.raises(ConfigError, match=message):
        allowed_tokens(sequences, 1, ends, VOCAB, 1)
