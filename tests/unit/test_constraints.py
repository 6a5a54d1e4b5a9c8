"""Forbidden and forced tokens equal those of the PyTorch processors of transformers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from processing import (  # noqa: E402
    CAPACITY,
    LENGTHS,
    ROWS,
    VOCAB,
    assert_equals_upstream,
    assert_same,
    history,
    ours,
    random_scores,
    theirs,
)
from transformers.generation import logits_process as upstream  # noqa: E402

from speech_ed_flax.generation.constraints import (  # noqa: E402
    ForcedTokens,
    MinimumLength,
    SuppressedTokens,
    SuppressedTokensAtBegin,
    ValidValues,
)
from speech_ed_flax.generation.ngrams import EncoderNoRepeatNgram, NoRepeatNgram  # noqa: E402
from speech_ed_flax.generation.tables import token_mask  # noqa: E402


def mask(*tokens: int) -> np.ndarray:
    return token_mask(tokens, VOCAB)


PAIRS = {
    "minimum length": (
        MinimumLength(6, mask(2, 9)),
        upstream.MinLengthLogitsProcessor(6, [2, 9]),
    ),
    "minimum of new tokens": (
        MinimumLength(6, mask(2)),
        upstream.MinNewTokensLengthLogitsProcessor(2, 4, 2),
    ),
    "forced first token": (ForcedTokens(mask(5), 1), upstream.ForcedBOSTokenLogitsProcessor(5)),
    "forced last tokens": (
        ForcedTokens(mask(5, 6), CAPACITY - 1),
        upstream.ForcedEOSTokenLogitsProcessor(CAPACITY, [5, 6]),
    ),
    "suppressed tokens": (
        SuppressedTokens(mask(0, 3, 22, 40)),
        upstream.SuppressTokensLogitsProcessor([0, 3, 22, 40]),
    ),
    "suppressed at begin": (
        SuppressedTokensAtBegin(mask(1, 4), 3),
        upstream.SuppressTokensAtBeginLogitsProcessor([1, 4], 3),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_constraint_equals_upstream(name):
    assert_equals_upstream(*PAIRS[name])


@pytest.mark.parametrize("size", [1, 2, 3, 14, 20])
def test_repeated_ngrams_are_forbidden_as_upstream(size):
    assert_equals_upstream(NoRepeatNgram(size), upstream.NoRepeatNGramLogitsProcessor(size))


@pytest.mark.parametrize("batch", [1, 2, ROWS])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 9, 20])
def test_ngrams_of_the_encoder_are_forbidden_as_upstream(size, batch):
    read = np.random.default_rng(size).integers(0, 5, (batch, 9)).astype(np.int32)
    reference = upstream.EncoderNoRepeatNGramLogitsProcessor(
        size, torch.tensor(read, dtype=torch.long)
    )
    assert_equals_upstream(EncoderNoRepeatNgram(size, read), reference)


@pytest.mark.parametrize("size", [1, 2])
def test_prompt_tokens_beyond_the_vocabulary_forbid_nothing(size):
    tokens, scores = history(0), random_scores(1)
    tokens[:, :2] = VOCAB + 4
    reference = upstream.NoRepeatNGramLogitsProcessor(size)
    assert_same(ours(NoRepeatNgram(size), tokens, scores, 6), theirs(reference, tokens, scores, 6))


def test_padding_after_the_text_is_no_ngram():
    scores = random_scores(0)
    for length in LENGTHS:
        tokens = history(3)
        expected = ours(NoRepeatNgram(2), tokens, scores, length)
        for padding in (-1, 0, 2, VOCAB - 1):
            tokens[:, length:] = padding
            np.testing.assert_array_equal(ours(NoRepeatNgram(2), tokens, scores, length), expected)


def test_invalid_values_become_numbers_as_upstream():
    scores = random_scores(0)
    scores[0, :4] = (np.nan, np.inf, -np.inf, -np.nan)
    reference = upstream.InfNanRemoveLogitsProcessor()
    np.testing.assert_array_equal(
        ours(ValidValues(), history(0), scores, 1), theirs(reference, history(0), scores, 1)
    )
