"""Penalties and biases equal the PyTorch processors of transformers."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from processing import (  # noqa: E402
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

from speech_ed_flax.generation.diversity import diversify  # noqa: E402
from speech_ed_flax.generation.penalties import (  # noqa: E402
    EncoderRepetitionPenalty,
    RepetitionPenalty,
    end_growth,
    sequence_bias,
)
from speech_ed_flax.generation.tables import token_mask  # noqa: E402

BAD_WORDS = ((3,), (1, 2), (2, 2), (0, 1, 2), (1, 0, 2), (4, 4, 4, 4), (7,))
BIASES = (
    ((3,), 1.5),
    ((7,), -np.inf),
    ((1, 2), -2.25),
    ((2, 2), 0.75),
    ((0, 2), 4.0),
    ((1, 0, 2), -0.5),
    ((0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5), 9.0),
)
ENDS = (2, 9)


@pytest.mark.parametrize("penalty", [1.7, 0.6])
def test_repetition_penalty_equals_upstream(penalty):
    assert_equals_upstream(
        RepetitionPenalty(penalty), upstream.RepetitionPenaltyLogitsProcessor(penalty)
    )


@pytest.mark.parametrize("batch", [1, 2, 3, ROWS])
@pytest.mark.parametrize("penalty", [1.7, 0.6])
def test_encoder_repetition_penalty_equals_upstream_for_any_number_of_beams(penalty, batch):
    read = np.random.default_rng(batch).integers(0, VOCAB, (batch, 9)).astype(np.int32)
    assert_equals_upstream(
        EncoderRepetitionPenalty(1 / penalty, read),
        upstream.EncoderRepetitionPenaltyLogitsProcessor(
            penalty, torch.tensor(read, dtype=torch.long)
        ),
    )


def test_sequence_bias_equals_upstream():
    reference = upstream.SequenceBiasLogitsProcessor([[list(word), bias] for word, bias in BIASES])
    assert_equals_upstream(sequence_bias(BIASES, VOCAB), reference)


def test_bad_words_equal_upstream():
    biases = tuple((word, -np.inf) for word in BAD_WORDS)
    reference = upstream.NoBadWordsLogitsProcessor([list(word) for word in BAD_WORDS])
    assert_equals_upstream(sequence_bias(biases, VOCAB), reference)


@pytest.mark.parametrize(("start", "factor"), [(0, 1.3), (2, 1.05), (4, 0.8), (20, 2.0)])
def test_end_growth_equals_upstream(start, factor):
    assert_equals_upstream(
        end_growth(start + 1, factor, token_mask(ENDS, VOCAB), 14),
        upstream.ExponentialDecayLengthPenalty((start, factor), list(ENDS), 1),
        rtol=1e-6,
    )


def test_end_growth_beyond_the_largest_number_stays_finite():
    grown = end_growth(0, 1e6, token_mask(ENDS, VOCAB), 500)
    assert np.isfinite(grown.growth).all()


@pytest.mark.parametrize("processor", ["repetition penalty", "bad words"])
def test_padding_after_the_text_changes_nothing(processor):
    biases = tuple((word, -np.inf) for word in BAD_WORDS)
    chosen = {
        "repetition penalty": RepetitionPenalty(1.7),
        "bad words": sequence_bias(biases, VOCAB),
    }[processor]
    scores = random_scores(0)
    for length in (1, 2, 3, 6):
        tokens = history(3)
        expected = ours(chosen, tokens, scores, length)
        for padding in (-1, 0, 2, VOCAB - 1):
            tokens[:, length:] = padding
            np.testing.assert_array_equal(ours(chosen, tokens, scores, length), expected)


def test_prompt_tokens_beyond_the_vocabulary_are_not_penalized():
    tokens, scores = history(0), random_scores(1)
    tokens[:, :2] = VOCAB + 4
    reference = upstream.RepetitionPenaltyLogitsProcessor(1.7)
    assert_same(
        ours(RepetitionPenalty(1.7), tokens, scores, 6), theirs(reference, tokens, scores, 6)
    )


@pytest.mark.parametrize("earlier", [0, 2, 4])
def test_diversity_subtracts_the_penalty_for_every_earlier_beam_with_the_token(earlier):
    batch, beams = 3, 2
    scores = random_scores(0, batch * beams)
    chosen = history(1, 4)[:batch, :earlier]
    got = np.asarray(diversify(jnp.asarray(scores), jnp.asarray(chosen), 0.5))
    for row in range(batch * beams):
        counts = np.bincount(chosen[row // beams], minlength=VOCAB).astype(np.float32)
        np.testing.assert_array_equal(got[row], scores[row] - counts / 2)
