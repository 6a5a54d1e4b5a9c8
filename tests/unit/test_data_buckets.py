"""Shapes of batches: every row fits, no set of shapes computes less, the budget holds."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax.data.buckets import Budget, Shape, assign, plan_shapes, single_shape
from speech_ed_flax.errors import ConfigError


def computed(samples: np.ndarray, shapes: tuple[Shape, ...]) -> int:
    """Returns the samples computed in an epoch, whose last batch of each shape is filled up."""
    bucket = np.searchsorted([shape.samples for shape in shapes], samples)
    counts = np.bincount(bucket, minlength=len(shapes)).tolist()
    pairs = zip(counts, shapes, strict=True)
    return sum(-(-count // shape.rows) * shape.rows * shape.samples for count, shape in pairs)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    shapes=st.integers(1, 3),
    multiple=st.sampled_from([1, 2, 4]),
    quantum=st.sampled_from([1, 4, 10]),
)
def test_no_other_choice_of_levels_computes_fewer_samples(samples, shapes, multiple, quantum):
    lengths = np.array(samples)
    budget = Budget(600, shapes, multiple, sample_multiple=quantum, label_multiple=1)
    planned = plan_shapes(lengths, lengths, budget)
    levels = np.unique(-(-lengths // quantum)) * quantum
    each = [Shape(level, 0, 600 // level // multiple * multiple) for level in levels.tolist()]
    best = min(
        computed(lengths, (*some, each[-1]))
        for count in range(min(shapes, len(each)))
        for some in itertools.combinations(each[:-1], count)
    )
    assert computed(lengths, planned) == best


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(1, 480_000), st.integers(0, 300)), min_size=1, max_size=60),
    shapes=st.integers(1, 8),
    multiple=st.sampled_from([1, 8]),
)
def test_every_row_fits_and_every_shape_keeps_to_the_budget(rows, shapes, multiple):
    samples, labels = np.array(rows).T
    budget = Budget(8 * 480_000, shapes, multiple, rows=64)
    planned = plan_shapes(samples, labels, budget)
    assert 1 <= len(planned) <= shapes
    assert list(planned) == sorted(planned)
    for shape in planned:
        assert shape.samples % budget.sample_multiple == 0
        assert shape.labels % budget.label_multiple == 0
        assert 0 < shape.rows <= 64
        assert shape.rows % multiple == 0
        assert shape.rows * shape.samples <= budget.samples
    bucket = assign(samples, labels, planned)
    assert bucket.max() < len(planned)


def test_many_rows_of_evenly_spread_lengths_have_little_padding():
    random = np.random.default_rng(0)
    samples = random.integers(16_000, 480_000, 20_000)
    shapes = plan_shapes(samples, samples // 1_000, Budget(32 * 480_000, shapes=12))
    # Twelve even steps from 1 to 30 seconds would pad 1.2 s of 15.5 s.
    assert 1 - samples.sum() / computed(samples, shapes) < 0.09


def test_the_longest_labels_of_a_shape_set_its_width():
    budget = Budget(1_000, 2, sample_multiple=10)
    shapes = plan_shapes(np.array([100, 110, 900]), np.array([3, 9, 2]), budget)
    assert [shape.labels for shape in shapes] == [16, 8]


def test_a_row_whose_labels_are_too_many_for_its_length_goes_to_a_longer_shape():
    shapes = (Shape(100, 8, 4), Shape(200, 16, 2))
    bucket = assign(np.array([50, 50, 150, 50]), np.array([8, 9, 1, 17]), shapes)
    assert bucket.tolist() == [0, 1, 1, 2]


def test_an_encoder_of_one_length_has_one_shape():
    shapes = single_shape(480_000, np.array([3, 21]), Budget(8 * 480_000, multiple=4))
    assert shapes == (Shape(480_000, 24, 8),)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (Budget(1_000, multiple=2, sample_multiple=1), "raise batch_seconds 1.60 times"),
        (Budget(10**6, multiple=2, rows=1), "max_rows=1 is less than the 2 rows"),
    ],
)
def test_a_budget_that_holds_no_batch_is_refused(budget, message):
    with pytest.raises(ConfigError, match=message):
        plan_shapes(np.array([800]), np.array([1]), budget)
    with pytest.raises(ConfigError, match=message):
        single_shape(800, np.array([1]), budget)
