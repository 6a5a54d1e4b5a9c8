"""Cutting long recordings: spans cover everything in order, none is too long, cuts are quiet."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax.audio.segments import split_at_quiet
from speech_ed_flax.errors import AudioError

RATE = 1_000


def noise(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


@settings(max_examples=200, deadline=None)
@given(
    length=st.integers(0, 20_000),
    rate=st.sampled_from([7, 100, 1_000, 16_000]),
    longest=st.floats(0.2, 9.0),
    search=st.floats(0.0, 12.0),
    seed=st.integers(0, 100),
)
def test_spans_cover_the_recording_in_order_and_none_is_too_long(
    length, rate, longest, search, seed
):
    spans = split_at_quiet(noise(length, seed), rate, longest, search)
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(spans))
    assert all(end - start <= longest * rate for start, end in spans)
    assert length == 0 or all(end > start for start, end in spans)


@settings(max_examples=50, deadline=None)
@given(pause=st.integers(20_500, 29_500), seed=st.integers(0, 100))
def test_the_cut_falls_into_the_pause(pause, seed):
    sound = noise(45_000, seed)
    sound[pause - 200 : pause + 200] *= 1e-3
    (_, cut), _ = split_at_quiet(sound, RATE)
    assert abs(cut - pause) <= 120


def test_a_pause_is_preferred_to_a_shorter_closure():
    sound = noise(45_000)
    sound[27_990:28_030] = 0.0
    sound[23_800:24_200] = 0.0
    assert split_at_quiet(sound, RATE) == [(0, 24_100), (24_100, 45_000)]


@pytest.mark.parametrize("length", [0, 1, 399, 30_000])
def test_what_is_short_enough_is_one_span(length):
    assert split_at_quiet(noise(length), RATE) == [(0, length)]


def test_equally_quiet_places_are_cut_at_the_latest():
    assert split_at_quiet(np.zeros(70_000, np.float32), RATE) == [
        (0, 30_000),
        (30_000, 60_000),
        (60_000, 70_000),
    ]


def test_every_span_but_the_last_uses_most_of_its_length():
    spans = split_at_quiet(noise(300_000), RATE, longest=30, search=10)
    assert all(end - start > 19_900 for start, end in spans[:-1])


def test_spans_of_no_sample_are_refused():
    with pytest.raises(AudioError, match="longest"):
        split_at_quiet(noise(100), RATE, longest=0.0)
