"""Recordings to text with a recogniser that only measures what it hears."""

import numpy as np
import pytest

from speech_ed_flax.audio.features import LogMelFeatures, WaveformFeatures
from speech_ed_flax.transcription import BUCKETS, transcribe

RATE = 16_000
FEATURES = WaveformFeatures(do_normalize=False)


class Listener:
    """Writes the seconds it hears in each row, and keeps the shapes it was given."""

    def __init__(self):
        self.shapes = []

    def __call__(self, values, mask):
        self.shapes.append(values.shape)
        return [f" {row.sum() / RATE:.2f} " for row in mask]


def tone(seconds: float) -> tuple[np.ndarray, int]:
    return 0.1 * np.sin(np.arange(int(seconds * RATE)) / 9).astype(np.float32), RATE


def test_results_come_in_the_order_of_the_sources_though_batches_are_sorted_by_length():
    results = list(transcribe([tone(1), tone(4), tone(2)], FEATURES, Listener(), batch_size=2))
    assert [r.text for r in results] == ["1.00", "4.00", "2.00"]
    assert [r.source for r in results] == ["0", "1", "2"]
    assert [r.duration for r in results] == [1.0, 4.0, 2.0]


def test_clips_of_several_recordings_share_a_batch_padded_to_a_bucket_and_a_power_of_two():
    listener = Listener()
    list(transcribe([tone(1), tone(2), tone(2.2)], FEATURES, listener, batch_size=4))
    assert listener.shapes == [(4, int(2.5 * RATE))]


def test_every_length_up_to_30_seconds_falls_in_one_of_the_buckets():
    listener = Listener()
    list(transcribe([tone(s) for s in range(1, 31)], FEATURES, listener, batch_size=1))
    assert {samples / RATE for _, samples in listener.shapes} == set(BUCKETS)


def test_a_long_recording_becomes_segments_that_follow_each_other_to_its_end():
    (result,) = transcribe([tone(70)], FEATURES, Listener())
    assert len(result.segments) >= 3
    assert result.segments[0].start == 0
    assert result.segments[-1].end == pytest.approx(70)
    assert all(s.end - s.start <= 30 for s in result.segments)
    pairs = zip(result.segments, result.segments[1:], strict=False)
    assert all(a.end == b.start for a, b in pairs)
    assert result.text == " ".join(s.text for s in result.segments)


@pytest.mark.parametrize("seconds", [0, 1 / RATE, 0.02])
def test_a_clip_shorter_than_one_frame_has_no_text_and_is_never_recognised(seconds):
    listener = Listener()
    (result,) = transcribe([tone(seconds)], FEATURES, listener)
    assert (result.text, result.error, listener.shapes) == ("", None, [])


def test_a_recording_that_cannot_be_read_has_an_error_and_stops_nothing(tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("not sound at all")
    results = list(transcribe([tone(1), bad, tone(2)], FEATURES, Listener()))
    assert [r.text for r in results] == ["1.00", "", "2.00"]
    assert results[1].source == str(bad)
    assert "bad.wav" in results[1].error
    assert results[0].error is results[2].error is None


def test_results_are_known_before_all_sources_are_read():
    read = []

    def sources():
        for index in range(40):
            read.append(index)
            yield tone(0.5)

    first = next(transcribe(sources(), FEATURES, Listener(), batch_size=1))
    assert first.text == "0.50"
    assert len(read) < 40


def test_spectrograms_keep_the_length_the_encoder_was_trained_on():
    listener = Listener()
    list(transcribe([tone(1), tone(2)], LogMelFeatures(), listener, batch_size=2))
    assert listener.shapes == [(2, 80, 3000)]
