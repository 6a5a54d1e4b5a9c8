"""Plans of batches: each row once an epoch, any step at any time, the same for the same seed."""

import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax.data.batches import EMPTY, BatchPlan, EvaluationPlan, PlannedBatch
from speech_ed_flax.data.buckets import Budget, Shape, plan_shapes
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.selection import select_rows
from speech_ed_flax.data.settings import DataSettings
from speech_ed_flax.data.speed import change_speed, stretched
from speech_ed_flax.errors import ConfigError

LENGTHS = np.random.default_rng(0).integers(16_000, 160_000, 200)
LABELS = Labels.of([[1] * (2 + length // 10_000) for length in LENGTHS])


def plan(
    lengths=LENGTHS, labels=LABELS, speeds=(0.9, 1.0, 1.1), seed=0, multiple=2, **changes
) -> BatchPlan:
    chosen = DataSettings(speeds=speeds, **changes)
    selection = select_rows(lengths, labels, chosen)
    rows, columns = np.nonzero(selection.allowed)
    budget = Budget(960_000, shapes=4, multiple=multiple)
    shapes = plan_shapes(selection.samples[rows, columns], labels.lengths[rows], budget)
    return BatchPlan(selection, shapes, seed)


def epoch(batches: BatchPlan, number: int) -> list[PlannedBatch]:
    steps = range(batches.first_step(number), batches.first_step(number + 1))
    return [batches[step] for step in steps]


def real(batches: list[PlannedBatch]) -> Counter:
    rows = np.concatenate([batch.rows for batch in batches])
    return Counter(rows[rows != EMPTY].tolist())


def same(first: PlannedBatch, second: PlannedBatch) -> bool:
    arrays = ("rows", "speeds", "samples")
    equal = all(np.array_equal(getattr(first, a), getattr(second, a)) for a in arrays)
    return equal and (first.shape, first.epoch) == (second.shape, second.epoch)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1_600, 160_000), min_size=1, max_size=50),
    seed=st.integers(0, 2**32),
    multiple=st.sampled_from([1, 2]),
)
def test_every_row_is_in_every_epoch_exactly_once(lengths, seed, multiple):
    labels = Labels.of([[1]] * len(lengths))
    batches = plan(np.array(lengths), labels, seed=seed, multiple=multiple)
    for number in (0, 1, 7):
        assert real(epoch(batches, number)) == Counter(range(len(lengths)))


def test_every_row_fits_its_batch_at_its_speed():
    batches = plan()
    for batch in epoch(batches, 0) + epoch(batches, 3):
        shape, rows = batch.shape, batch.rows
        assert shape in batches.shapes
        assert len(rows) == shape.rows
        there = rows != EMPTY
        assert batch.samples.max() <= shape.samples
        assert LABELS.lengths[rows[there]].max() <= shape.labels
        expected = np.ceil(LENGTHS[rows[there]] / batch.speeds[there])
        np.testing.assert_array_equal(batch.samples[there], expected)
        assert not batch.samples[~there].any()
        assert there[: there.sum()].all()  # empty rows come last


def test_any_step_can_be_asked_for_at_any_time_and_of_a_copy():
    batches = plan()
    in_order = [batches[step] for step in range(60)]
    late = plan()
    assert same(late[59], in_order[59])
    copied = pickle.loads(pickle.dumps(batches))
    for step in (33, 2, 58, 0):
        assert same(late[step], in_order[step])
        assert same(copied[step], in_order[step])
    assert batches.digest == late.digest == copied.digest


def test_epochs_and_seeds_have_other_orders_and_other_speeds():
    first, second, other = epoch(plan(), 0), epoch(plan(), 1), epoch(plan(seed=1), 0)
    orders = [[batch.rows.tolist() for batch in batches] for batches in (first, second, other)]
    assert orders[0] != orders[1]
    assert orders[0] != orders[2]
    speeds = [np.concatenate([batch.speeds for batch in batches]) for batches in (first, second)]
    assert set(speeds[0]) == {0.9, 1.0, 1.1}
    counts = Counter(np.concatenate(speeds).tolist())
    assert min(counts.values()) > 0.25 * sum(counts.values())


def test_batches_of_one_shape_are_spread_over_an_epoch():
    shapes = [batch.shape for batch in epoch(plan(), 0)]
    assert shapes != sorted(shapes)


def test_the_rows_left_over_move_up_where_they_save_a_batch():
    shapes = (Shape(100, 8, 8), Shape(200, 8, 4), Shape(400, 8, 2))
    lengths = np.array([90] * 9 + [190] * 6 + [390] * 2)
    evaluation = EvaluationPlan(lengths, np.ones(len(lengths), np.int64), shapes)
    # One of the nine short rows joins the two that are left of the middle ones.
    batches = [evaluation[step] for step in range(len(evaluation))]
    sizes = [(batch.shape.samples, np.count_nonzero(batch.rows + 1)) for batch in batches]
    assert sizes == [(100, 8), (200, 4), (200, 3), (400, 2)]


def test_only_short_rows_at_the_end_of_shapes_are_padding_beside_the_rounding_of_lengths():
    batches = plan()
    computed = sum(batch.shape.rows * batch.shape.samples for batch in epoch(batches, 0))
    heard = sum(batch.samples.sum() for batch in epoch(batches, 0))
    assert batches.padding() == pytest.approx(1 - heard / computed)
    assert batches.padding() < 0.25
    short = [batch for batch in epoch(batches, 0) if (batch.rows == EMPTY).any()]
    assert len(short) <= len(batches.shapes)


def test_the_digest_tells_plans_apart():
    digests = {plan().digest, plan(seed=1).digest, plan(speeds=(1.0,)).digest}
    digests |= {plan(multiple=4).digest, plan(max_seconds=9.0).digest}
    digests.add(plan(labels=Labels.of([[1, 2]] * 200)).digest)
    assert len(digests) == 6


def test_rows_outside_the_limits_are_left_out_and_counted_by_their_reason():
    lengths = np.array([160, 16_000, 160_000, 900_000, 16_000, 16_000, 16_000])
    labels = Labels.of([[1], [1], [1], [1], [1] * 30, [], [1] * 20])
    chosen = DataSettings(max_labels=25)
    selection = select_rows(lengths, labels, chosen, ctc_frames=lambda samples: samples // 1_000)
    assert selection.omitted == {
        "too short": 1, "too long": 1, "no labels": 1, "too many labels": 1,
        "too few frames for CTC": 1,
    }  # fmt: skip
    assert np.flatnonzero(selection.allowed[:, 0]).tolist() == [1, 2]


def test_a_speed_that_would_break_a_limit_is_never_drawn():
    lengths = np.array([29 * 16_000, 16_000])
    selection = select_rows(lengths, Labels.of([[1]] * 2), DataSettings(speeds=(0.9, 1.1)))
    # 29 s at 0.9 are more than 30 s; and nothing is heard at speed 1 that may have another.
    assert selection.speeds == (1.0, 0.9, 1.1)
    assert selection.allowed.tolist() == [[False, False, True], [False, True, True]]
    tight = select_rows(lengths[:1], Labels.of([[1]]), DataSettings(speeds=(0.9,)))
    assert tight.allowed.tolist() == [[True, False]]


def test_no_row_that_is_left_is_an_error_that_says_why():
    with pytest.raises(ConfigError, match="no row is left of 2: 2 too long"):
        select_rows(np.array([10**6] * 2), Labels.of([[1]] * 2), DataSettings())
    with pytest.raises(ConfigError, match="labels of 1 rows for 2 rows of sound"):
        select_rows(np.array([10**5] * 2), Labels.of([[1]]), DataSettings())


def test_rows_that_fit_no_shape_are_refused():
    selection = select_rows(np.array([32_000]), Labels.of([[1]]), DataSettings())
    with pytest.raises(ConfigError, match="1 rows fit none"):
        BatchPlan(selection, (Shape(16_000, 8, 2),))
    with pytest.raises(ConfigError, match="row 0 fits none"):
        EvaluationPlan(np.array([32_000]), np.array([1]), (Shape(16_000, 8, 2),))


def test_an_evaluation_has_every_row_once_the_shortest_first():
    shapes = plan_shapes(LENGTHS, LABELS.lengths, Budget(960_000, 4, 4))
    evaluation = EvaluationPlan(LENGTHS, LABELS.lengths, shapes)
    batches = [evaluation[step] for step in range(len(evaluation))]
    assert real(batches) == Counter(range(200))
    assert [batch.shape for batch in batches] == sorted(batch.shape for batch in batches)
    assert all((batch.speeds == 1).all() for batch in batches)
    with pytest.raises(IndexError):
        evaluation[len(evaluation)]


@settings(max_examples=50, deadline=None)
@given(samples=st.integers(0, 3_000), speed=st.sampled_from([0.9, 0.95, 1.0, 1.1, 1.37]))
def test_the_length_at_another_speed_is_known_before_it_is_heard(samples, speed):
    clip = np.linspace(-1, 1, samples, dtype=np.float32)
    assert len(change_speed(clip, speed)) == stretched(samples, speed)


def test_a_faster_tone_is_higher():
    clip = np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(change_speed(clip, 1.1), 16_000))
    assert abs(int(np.argmax(spectrum)) - 484) <= 1


@pytest.mark.parametrize(
    "changes",
    [{"shapes": 0}, {"batch_seconds": 0.01}, {"max_seconds": 0.01}, {"speeds": ()},
     {"speeds": (0.0,)}, {"workers": -1}, {"max_rows": 0}, {"seed": -1}, {"max_labels": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused_by_name(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        DataSettings(**changes)
