"""Cutting recordings: stretches are in order, none is too long, words are whole."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import speech_like

from speech_ed_flax.audio import speech
from speech_ed_flax.audio.segments import Cutting, cut
from speech_ed_flax.audio.speech import EnergyDetector, find_detector
from speech_ed_flax.errors import AudioError, ConfigError

RATE = 1_000


def spans(sound: np.ndarray, block: int = 10**9, rate: int = RATE, **cutting) -> list:
    """Returns start and end of each stretch, in samples."""
    blocks = (sound[i : i + block] for i in range(0, len(sound), block))
    found = list(cut(blocks, rate, Cutting(**cutting)))
    for start, samples in found:
        np.testing.assert_array_equal(samples, sound[start : start + len(samples)])
    return [(start, start + len(samples)) for start, samples in found]


def talk(*parts: float) -> np.ndarray:
    """Returns seconds of speech and of silence by turns; speech without a pause of its own."""
    noise = np.random.default_rng(0).standard_normal(int(sum(parts) * RATE))
    time = np.arange(len(noise)) / RATE
    envelope = 0.1 + np.sin(4 * np.pi * time) ** 2
    edges = np.cumsum((0, *parts))
    for first, last in zip(edges[1::2], edges[2::2], strict=False):
        envelope[int(first * RATE) : int(last * RATE)] = 1e-4
    return (0.1 * noise * envelope).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    syllables=st.lists(st.integers(1, 160), min_size=1, max_size=5),
    longest=st.floats(1.0, 30.0),
    block=st.integers(500, 100_000),
)
def test_stretches_are_in_order_and_short_enough_however_the_sound_arrives(
    syllables, longest, block
):
    sound = talk(*(0.25 * count for count in syllables))  # none ends as it begins, like a click
    found = spans(sound, longest=longest)
    assert found == spans(sound, block, longest=longest)
    assert all(0 < end - start <= longest * RATE for start, end in found)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(found))
    inside = np.zeros(len(sound), bool)
    for start, end in found:
        inside[start:end] = True
    for frame in np.flatnonzero(speech.loudness(sound, RATE) > -24):
        assert inside[20 * frame : 20 * frame + 20].all()


@settings(max_examples=30, deadline=None)
@given(pause=st.floats(15.0, 28.5))
def test_a_cut_falls_into_the_last_pause_that_a_stretch_reaches(pause):
    first, second = spans(talk(10, 0.5, pause - 10, 0.5, 25))
    assert first[1] == pytest.approx((pause + 0.5 + 0.25) * RATE, abs=300)
    assert second[0] == pytest.approx((pause + 1.0) * RATE, abs=300)


@pytest.mark.parametrize(("pause", "stretches"), [(0.8, 2), (1.5, 3)])
def test_a_pause_of_an_eighth_of_the_longest_ends_a_stretch(pause, stretches):
    assert len(spans(talk(2, pause, 2, 0.4, 6), longest=8.0)) == stretches


def test_where_there_is_no_pause_the_quietest_place_of_the_last_third_is_cut():
    sound = talk(45)
    sound[24_900:25_100] *= 0.05
    (_, end), _ = spans(sound)
    assert end == pytest.approx(25_000, abs=150)


def test_silence_is_left_out_but_for_a_little_at_both_ends():
    found = spans(talk(20, 8, 3, 30, 2, 1))
    expected = [(0, 20_200), (27_800, 31_200), (60_800, 63_200)]
    np.testing.assert_allclose(found, expected, atol=150)


def test_a_click_is_no_speech():
    sound = talk(20, 40)
    sound[40_000:40_030] = 1.0
    assert len(spans(sound)) == 1


@pytest.mark.parametrize("seconds", [0.1, 1, 7, 30])
def test_what_is_short_enough_is_one_stretch(seconds):
    sound = talk(seconds)
    assert spans(sound) == [(0, len(sound))]


@pytest.mark.parametrize("seconds", [0, 1, 30, 200])
@pytest.mark.parametrize("level", [0.0, 1e-4, 0.1])
def test_neither_silence_nor_noise_is_speech(seconds, level):
    noise = level * np.random.default_rng(0).standard_normal(16_000 * seconds)
    found = spans(noise.astype(np.float32), rate=16_000)
    assert found == [] or (level, seconds) == (0.1, 1)


def test_speech_is_heard_through_noise():
    sound = speech_like(60, 16_000)
    sound[20 * 16_000 : 40 * 16_000] = 0
    noise = 0.01 * np.random.default_rng(1).standard_normal(len(sound))
    found = spans((sound + noise).astype(np.float32), rate=16_000)
    assert 20 * 16_000 <= sum(end - start for start, end in found) <= 42 * 16_000
    assert not any(21 * 16_000 < start < 39 * 16_000 for start, _ in found)


def test_stretches_no_longer_than_their_padding_are_refused():
    with pytest.raises(AudioError, match="longest"):
        Cutting(longest=0.2)


class Everywhere:
    """A detector of a user's."""

    def __call__(self, samples, rate):
        return np.ones(-(-len(samples) // (rate // 50)), bool)


class Point:
    """An entry point, without a package around it."""

    name = "everywhere"

    def load(self):
        return Everywhere


def test_an_installed_package_may_have_another_detector(monkeypatch):
    monkeypatch.setattr(speech, "entry_points", lambda group: [Point()])
    assert find_detector("energy") is EnergyDetector
    silence = np.zeros(16_000, np.float32)
    ((start, samples),) = cut([silence], 16_000, detector=find_detector("everywhere")())
    assert (start, len(samples)) == (0, 16_000)
    with pytest.raises(ConfigError, match="there is energy, everywhere"):
        find_detector("silero")
