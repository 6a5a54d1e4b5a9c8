"""Warpers equal the PyTorch warpers of transformers, whatever path ranks the scores."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

torch = pytest.importorskip("torch")
from processing import assert_same, history, ours, random_scores, theirs  # noqa: E402
from transformers.generation import logits_process as upstream  # noqa: E402

from speech_ed_flax.generation import ranking  # noqa: E402
from speech_ed_flax.generation.warpers import (  # noqa: E402
    EpsilonCutoff,
    EtaCutoff,
    MinP,
    Normalized,
    Temperature,
    TopH,
    TopK,
    TopP,
    TypicalP,
)

PAIRS = {
    "temperature": (Temperature(0.7), upstream.TemperatureLogitsWarper(0.7)),
    "top 5": (TopK(5), upstream.TopKLogitsWarper(5)),
    "top 9999": (TopK(9999), upstream.TopKLogitsWarper(9999)),
    "top 0.6": (TopP(0.6, 1), upstream.TopPLogitsWarper(0.6)),
    "top 0.95": (TopP(0.95, 1), upstream.TopPLogitsWarper(0.95)),
    "top 0.05, three at least": (
        TopP(0.05, 3),
        upstream.TopPLogitsWarper(0.05, min_tokens_to_keep=3),
    ),
    "min 0.2": (MinP(0.2, 1), upstream.MinPLogitsWarper(0.2)),
    "min 0": (MinP(0.0, 1), upstream.MinPLogitsWarper(0.0)),
    "min 0.9, three at least": (MinP(0.9, 3), upstream.MinPLogitsWarper(0.9, min_tokens_to_keep=3)),
    "top 0.3 of entropy": (TopH(0.3), upstream.TopHLogitsWarper(0.3)),
    "top 0.8 of entropy": (TopH(0.8), upstream.TopHLogitsWarper(0.8)),
    "typical 0.2": (TypicalP(0.2, 1), upstream.TypicalLogitsWarper(0.2)),
    "typical 0.9": (TypicalP(0.9, 1), upstream.TypicalLogitsWarper(0.9)),
    "typical 0.1, three at least": (
        TypicalP(0.1, 3),
        upstream.TypicalLogitsWarper(0.1, min_tokens_to_keep=3),
    ),
    "epsilon 0.01": (EpsilonCutoff(0.01, 1), upstream.EpsilonLogitsWarper(0.01)),
    "epsilon 0.9, three at least": (
        EpsilonCutoff(0.9, 3),
        upstream.EpsilonLogitsWarper(0.9, min_tokens_to_keep=3),
    ),
    "eta 0.02": (EtaCutoff(0.02, 1), upstream.EtaLogitsWarper(0.02)),
    "eta 0.9, three at least": (
        EtaCutoff(0.9, 3),
        upstream.EtaLogitsWarper(0.9, min_tokens_to_keep=3),
    ),
}


@pytest.mark.parametrize("shape", [(5, 23), (1, 2), (2, 700)])
@pytest.mark.parametrize("name", PAIRS)
def test_warper_equals_upstream(name, shape):
    processor, reference = PAIRS[name]
    tokens = history(0, rows=shape[0])
    for seed in range(8):
        scores = random_scores(seed, *shape)
        assert_same(ours(processor, tokens, scores, 3), theirs(reference, tokens, scores, 3))


@pytest.mark.parametrize("name", PAIRS)
def test_scores_that_are_already_excluded_stay_excluded(name):
    processor, reference = PAIRS[name]
    for alive in (1, 2, 9):
        scores = random_scores(alive)
        scores[:, : -1 - alive] = -np.inf
        scores[:, -1] = -np.inf
        got = ours(processor, history(0), scores, 3)
        assert_same(got, theirs(reference, history(0), scores, 3))


@pytest.mark.parametrize("scale", [1e-3, 8.0])
@pytest.mark.parametrize("name", PAIRS)
def test_flat_and_peaked_distributions_are_cut_as_upstream(name, scale):
    processor, reference = PAIRS[name]
    scores = random_scores(7) * np.float32(scale)
    assert_same(ours(processor, history(0), scores, 3), theirs(reference, history(0), scores, 3))


@pytest.mark.parametrize(
    ("processor", "reference"),
    [
        (TopK(3), upstream.TopKLogitsWarper(3)),
        (TopP(0.5, 1), upstream.TopPLogitsWarper(0.5)),
        (TopP(0.7, 1), upstream.TopPLogitsWarper(0.7)),
        (TopP(0.3, 3), upstream.TopPLogitsWarper(0.3, min_tokens_to_keep=3)),
        (MinP(0.3, 1), upstream.MinPLogitsWarper(0.3)),
        (EpsilonCutoff(0.3, 2), upstream.EpsilonLogitsWarper(0.3, min_tokens_to_keep=2)),
        (TypicalP(0.4, 1), upstream.TypicalLogitsWarper(0.4)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_ties_are_kept_and_cut_as_upstream(processor, reference):
    # -0 equals 0, and every score but one has equals.
    scores = np.tile(np.array([0, 1, 1, 1, -0.0, 2, 0, 1], np.float32), (6, 1))
    assert_same(ours(processor, history(0), scores, 3), theirs(reference, history(0), scores, 3))


@pytest.mark.parametrize("warper", [TopP, TypicalP])
def test_ranking_only_the_survivors_of_top_k_changes_nothing(warper):
    for seed in range(20):
        scores = ours(TopK(6), history(0), random_scores(seed), 1)
        everything = ours(warper(0.8, 2), history(0), scores, 1)
        survivors = ours(warper(0.8, 2, 6), history(0), scores, 1)
        np.testing.assert_array_equal(everything, survivors)


def test_normalized_scores_are_log_probabilities():
    scores = random_scores(3)
    scores[:, 4:] = -np.inf
    got = ours(Normalized(), history(0), scores, 1)
    assert_same(got, theirs(upstream.LogitNormalization(), history(0), scores, 1), rtol=3e-6)
    np.testing.assert_allclose(np.exp(got).sum(axis=-1), 1, rtol=1e-6)


# Eighths add up exactly in any order, and few of them make many ties.
last_to_reach = jax.jit(ranking.last_to_reach)
value_to_reach = jax.jit(ranking.value_to_reach)
EIGHTHS = st.lists(st.integers(-8, 8), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(EIGHTHS, st.integers(1, 100), st.randoms(use_true_random=False))
def test_the_cut_found_by_bisection_is_that_of_a_sort(eighths, target, random):
    padding = 12 - len(eighths)  # one shape, one compilation
    scores = np.array([*eighths, *[-np.inf] * padding], np.float32) / 8
    weights = np.array([random.randint(0, 9) for _ in eighths] + [0] * padding, np.float32)
    order = np.lexsort((np.arange(12), scores))[::-1]
    reached = np.cumsum(weights[order]) >= target
    kept = np.zeros(12, bool)
    kept[order[: np.argmax(reached) + 1 if reached.any() else 12]] = True

    rows = jnp.asarray(scores[None]), jnp.asarray(weights[None])
    value, index = last_to_reach(*rows, np.float32(target))
    got = np.asarray(ranking.not_after(rows[0], value, index))[0]
    finite = np.isfinite(scores) | reached.any()
    np.testing.assert_array_equal(got[finite], kept[finite])
    threshold = value_to_reach(*rows, np.float32(target))
    assert threshold == (scores[kept].min() if reached.any() else -np.inf)
