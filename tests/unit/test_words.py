"""Times of words: the best path through attention, and which tokens a word is made of."""

from types import SimpleNamespace

import numpy as np
import pytest
from guesser import WORDS, guesser
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.transcription.words import WordFinder, warp


def best_gain(gain: np.ndarray) -> float:
    """Returns the highest gain of any path, cell by cell."""
    best = np.full((gain.shape[0] + 1, gain.shape[1] + 1), -np.inf)
    best[0, 0] = 0
    for i in range(gain.shape[0]):
        for j in range(gain.shape[1]):
            best[i + 1, j + 1] = gain[i, j] + max(best[i, j], best[i, j + 1], best[i + 1, j])
    return best[-1, -1]


@settings(max_examples=50, deadline=None)
@given(tokens=st.integers(1, 6), states=st.integers(1, 9), seed=st.integers(0, 99))
def test_the_path_is_the_best_there_is(tokens, states, seed):
    gain = np.random.default_rng(seed).standard_normal((tokens, states))
    starts = warp(gain).astype(int)
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    # A token lasts to where the next begins: there both are heard, or the next one state later.
    ends = np.append(starts[1:], states - 1)
    options = [
        sum(gain[i, starts[i] : end + 1].sum() for i, end in enumerate(chosen))
        for chosen in _ends(starts, ends)
    ]
    assert max(options) == pytest.approx(best_gain(gain))


def _ends(starts, ends):
    """Yields the last states that tokens may have, given where the next ones begin."""
    found = [[]]
    for i, end in enumerate(ends):
        last = i == len(ends) - 1
        choices = {end} if last or end == starts[i] else {end, end - 1}
        found = [[*chosen, choice] for chosen in found for choice in choices]
    return found


def attention(spans: list[tuple[int, int]], states: int) -> np.ndarray:
    """Returns ``[layer 0][row, head, token, state]``: each token hears one stretch."""
    heard = np.full((1, 2, len(spans), states), 1e-3)
    for token, (start, end) in enumerate(spans):
        heard[0, :, token, start:end] = 1.0
    return heard


def test_words_begin_where_the_decoder_began_to_listen_to_them():
    tokenizer = guesser().processor.tokenizer
    ids = [WORDS.index(word) for word in ("<s>", "two", "one", "three", "</s>")]
    layers = (attention([(0, 20), (20, 50), (50, 80), (80, 100)], 100),)
    found = SimpleNamespace(sequences=np.array([ids]), cross_attentions=layers)
    (words,) = WordFinder(tokenizer)(found, np.ones((1, 7), bool), seconds=10.0)
    assert [word.text for word in words] == ["two", "one", "three"]
    assert [word.start for word in words] == pytest.approx([0, 2, 5], abs=0.2)
    assert [word.end for word in words] == pytest.approx([2, 5, 8], abs=0.2)


def test_padding_is_not_listened_to():
    tokenizer = guesser().processor.tokenizer
    ids = [WORDS.index(word) for word in ("<s>", "two", "</s>")]
    layers = (attention([(0, 30), (90, 100)], 100),)
    found = SimpleNamespace(sequences=np.array([ids]), cross_attentions=layers)
    mask = np.arange(100)[None] < 50
    ((word,),) = WordFinder(tokenizer)(found, mask, seconds=10.0)
    assert word.end <= 5.0


def test_the_heads_that_a_checkpoint_names_are_listened_to():
    tokenizer = guesser().processor.tokenizer
    generation = SimpleNamespace(alignment_heads=[[1, 0], [0, 1]])
    finder = WordFinder.of(generation, Processor(None, tokenizer))
    layers = [np.full((1, 2, 3, 4), number) for number in (10, 20)]
    chosen = finder._chosen(layers)
    assert chosen.shape == (1, 2, 3, 4)
    assert chosen[0, :, 0, 0].tolist() == [20, 10]
    assert WordFinder.of(SimpleNamespace(), Processor(None, tokenizer))._chosen(layers).shape == (
        1,
        2,
        3,
        4,
    )
    with pytest.raises(ConfigError, match="tokenizer"):
        WordFinder.of(generation, Processor())


def test_words_may_have_several_tokens_and_tokens_several_words():
    class Letters:
        all_special_ids = ()

        def decode(self, tokens, skip_special_tokens=True):
            return "".join(["he", "llo", " w", "orld, a b"][token] for token in tokens)

    spelled = WordFinder(Letters())._spelled(np.arange(4))
    assert spelled == [(0, 2, "hello"), (2, 4, "world,"), (3, 4, "a"), (3, 4, "b")]
