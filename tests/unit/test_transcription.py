"""Recordings to text with a recogniser that only measures what it hears."""

import numpy as np
import pytest
from sounds import speech_like
from worker_tasks import DeadlyListening, StillbornListening

from speech_ed_flax.audio.features import LogMelFeatures, WaveformFeatures
from speech_ed_flax.errors import SpeechError
from speech_ed_flax.transcription import Job, Listening, Segment, Thresholds, Transcriber, prepare
from speech_ed_flax.transcription.judgement import Hypothesis
from speech_ed_flax.transcription.listening import BUCKETS, plan_buckets

RATE = 16_000
FEATURES = WaveformFeatures(do_normalize=False)


class Listener:
    """Writes the seconds it hears in each row, and keeps the shapes it was given."""

    def __init__(self, rows_that_fit=1000):
        self.shapes, self._fits = [], rows_that_fit

    def __call__(self, values, mask, seconds):
        self.shapes.append(values.shape)
        if len(values) > self._fits:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2 bytes.")
        return [Hypothesis(f"{real * seconds:.2f}", -0.5) for real in mask.mean(axis=1)]


def sound(seconds: float) -> tuple[np.ndarray, int]:
    return speech_like(seconds, RATE), RATE


def transcribe(sources, listener=None, features=FEATURES, **settings):
    listener = Listener() if listener is None else listener
    return list(Transcriber(Listening(features), listener, **settings).stream(sources))


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_sources_though_batches_are_of_one_length(workers):
    results = transcribe([sound(s) for s in (1, 4, 2)], batch_size=2, workers=workers)
    assert [r.text for r in results] == ["1.00", "4.00", "2.00"]
    assert [r.source for r in results] == ["0", "1", "2"]
    assert [r.duration for r in results] == [1.0, 4.0, 2.0]


def test_clips_of_several_recordings_share_a_batch_padded_to_a_bucket_and_a_power_of_two():
    listener = Listener()
    transcribe([sound(1), sound(2), sound(2.2)], listener, batch_size=4)
    assert listener.shapes == [(4, int(2.5 * RATE))]


def test_rows_are_a_multiple_of_the_devices_that_share_them():
    listener = Listener()
    transcribe([sound(1)] * 4, listener, batch_size=4, row_multiple=3)
    assert listener.shapes == [(6, int(2.5 * RATE))]


def test_every_length_up_to_30_seconds_falls_in_one_of_the_buckets():
    listener = Listener()
    transcribe([sound(s) for s in range(1, 31)], listener, batch_size=1)
    assert {samples / RATE for _, samples in listener.shapes} == set(BUCKETS)


def test_a_long_recording_becomes_segments_that_follow_each_other_to_its_end():
    (result,) = transcribe([sound(70)])
    assert len(result.segments) >= 3
    assert result.segments[0].start < 0.3
    assert result.segments[-1].end == pytest.approx(70, abs=0.5)
    assert all(s.end - s.start <= 30 for s in result.segments)
    pairs = zip(result.segments, result.segments[1:], strict=False)
    assert all(0 <= b.start - a.end < 0.5 for a, b in pairs)
    assert result.text == " ".join(s.text for s in result.segments)


def test_segments_are_known_before_their_recording_ends():
    events = []
    blocks = Transcriber(Listening(FEATURES), Listener(), batch_size=1)
    for event in blocks.follow([sound(100), sound(1)]):
        events.append(type(event).__name__)
    assert events == ["Segment"] * 4 + ["Transcript", "Segment", "Transcript"]


def test_a_part_of_a_recording_is_a_job_of_its_own():
    whole, rate = sound(8)
    jobs = [
        Job((whole, rate), "a", 1.0, 2.0),
        Job((whole, rate), "b", 6.5),
        Job((whole, rate), "c", 9.0),
    ]
    first, second, third = transcribe(jobs)
    assert (first.text, first.duration) == ("2.00", 2.0)
    assert (second.text, second.duration) == ("1.50", 1.5)
    assert "c: it ends at 8.00 s" in third.error


@pytest.mark.parametrize("seconds", [0, 1 / RATE, 0.02])
def test_a_clip_shorter_than_one_frame_has_no_text_and_is_never_recognised(seconds):
    listener = Listener()
    (result,) = transcribe([sound(seconds)], listener)
    assert (result.text, result.error, listener.shapes) == ("", None, [])


@pytest.mark.parametrize("kind", ["silence", "noise", "hum"])
@pytest.mark.parametrize("seconds", [3, 65])
def test_where_nobody_speaks_nothing_is_recognised(kind, seconds):
    time = np.arange(seconds * RATE) / RATE
    made = {
        "silence": np.zeros(len(time)),
        "noise": 0.1 * np.random.default_rng(0).standard_normal(len(time)),
        "hum": 0.1 * np.sin(2 * np.pi * 50 * time),
    }
    listener = Listener()
    (result,) = transcribe([(made[kind].astype(np.float32), RATE)], listener)
    assert (result.text, result.segments, listener.shapes) == ("", (), [])


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Hypothesis("well well well " * 9, -0.1), "repetition"),
        (Hypothesis("well well", -0.1), None),
        (Hypothesis("no no no no no no no no no no", -0.1), None),  # as it may be said
        (Hypothesis("what", -4.0), "low probability"),
        (Hypothesis("what", -0.2), None),
        (Hypothesis("", -0.2), None),
    ],
)
def test_a_text_that_is_not_to_be_believed_is_kept_apart_with_the_reason(found, reason):
    transcriber = Transcriber(Listening(FEATURES), lambda *_: [found])
    (result,) = transcriber.stream([sound(1)])
    assert result.text == ("" if reason else found.text)
    for segment in result.segments:
        assert (segment.suppressed, segment.heard) == (reason, found.text if reason else None)
    unbounded = Thresholds(None, None)
    (result,) = Transcriber(Listening(FEATURES), lambda *_: [found], 8, unbounded).stream(
        [sound(1)]
    )
    assert result.text == found.text


def test_a_recording_that_cannot_be_read_has_an_error_and_stops_nothing(tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("not sound at all")
    results = transcribe([sound(1), bad, sound(2)])
    assert [r.text for r in results] == ["1.00", "", "2.00"]
    assert results[1].source == str(bad)
    assert "bad.wav" in results[1].error
    assert results[0].error is results[2].error is None


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("deadly", ["deadly at once", "deadly at the end"])
def test_a_recording_that_kills_its_process_is_the_only_one_lost(workers, deadly):
    def run(*names):
        jobs = [Job(sound(40 if "long" in name else 1), name) for name in names]
        listening = DeadlyListening(FEATURES)
        return list(Transcriber(listening, Listener(), 2, workers=workers).stream(jobs))

    good = [*"abcd", "long e", *"fghi"]
    without = run(*good)
    results = run(*good[:3], deadly, *good[3:], deadly)
    assert [r for r in results if r.source != deadly] == without
    assert [r.error is None for r in without] == [True] * len(good)
    lost = [r for r in results if r.source == deadly]
    assert [r.text for r in lost] == ["", ""]
    assert all(f"{deadly}: the process that decodes it died" in r.error for r in lost)


def test_processes_that_cannot_even_start_are_no_fault_of_a_recording():
    with pytest.raises(SpeechError, match="a process that decodes sound died"):
        list(Transcriber(StillbornListening(FEATURES), Listener(), workers=1).stream([sound(1)]))


def test_results_are_known_before_all_sources_are_read():
    read = []

    def sources():
        for index in range(40):
            read.append(index)
            yield sound(0.5)

    transcriber = Transcriber(Listening(FEATURES), Listener(), batch_size=1)
    assert next(transcriber.stream(sources())).text == "0.50"
    assert len(read) < 40


def test_batches_that_do_not_fit_are_halved_once_and_for_all(caplog):
    listener = Listener(rows_that_fit=2)
    results = transcribe([sound(1)] * 9, listener, batch_size=8)
    assert [r.text for r in results] == ["1.00"] * 9
    assert [rows for rows, _ in listener.shapes] == [8, 4, 2, 2, 4, 2, 2, 1]
    assert "going on with 2" in caplog.text


def test_other_errors_of_the_model_are_not_hidden():
    def broken(*_):
        raise RuntimeError("INTERNAL: something else")

    with pytest.raises(RuntimeError, match="something else"):
        transcribe([sound(1)], broken)


def test_spectrograms_keep_the_length_the_encoder_was_trained_on():
    listener = Listener()
    transcribe([sound(1), sound(2)], listener, LogMelFeatures(), batch_size=2)
    assert listener.shapes == [(2, 80, 3000)]


def test_a_result_has_the_shape_of_a_pipelines():
    (result,) = transcribe([sound(2)])
    assert result.to_pipeline() == {
        "text": "2.00",
        "chunks": [{"timestamp": (0.0, 2.0), "text": "2.00"}],
    }
    assert isinstance(result.segments[0], Segment)


def test_a_rare_length_does_not_hold_up_the_others_for_ever():
    read = []

    def sources():
        for index in range(100):
            read.append(index)
            yield sound(4 if index == 0 else 1)

    transcriber = Transcriber(Listening(FEATURES), Listener(), batch_size=2)
    assert next(transcriber.stream(sources())).text == "4.00"
    assert len(read) < 40


def test_usage_says_how_much_was_padding():
    transcriber = Transcriber(Listening(FEATURES), Listener(), batch_size=4)
    list(transcriber.stream([sound(2), sound(2), sound(2)]))
    assert (transcriber.usage.clips, transcriber.usage.heard) == (3, 6.0)
    assert transcriber.usage.padding == pytest.approx(1 - 6 / 10)


def test_planned_lengths_are_those_with_the_least_padding():
    seconds = [1.0] * 9 + [1.2, 4.0, 4.0, 4.0, 7.0, 90.0]
    assert plan_buckets(seconds, 30, 12) == (1.0, 1.2, 2.5, 4.0, 5.0, 7.0, *BUCKETS[2:])
    assert plan_buckets(seconds, 30, 1) == (30.0,)
    assert plan_buckets(seconds[:-1], 30, 2) == (1.2, 7.0)
    assert plan_buckets([0.55, 2.31], 10, 2) == (0.6, 2.4)
    assert plan_buckets(BUCKETS, 30, 7) == BUCKETS
    assert plan_buckets(BUCKETS, 12, 7) == (2.5, 5.0, 10.0, 12.0)


def test_a_clip_that_is_longer_than_planned_is_padded_to_the_longest():
    listener = Listener()
    listening = Listening(FEATURES, longest=5.0, buckets=(1.0, 2.0))
    list(Transcriber(listening, listener, batch_size=1).stream([sound(3), sound(1.5)]))
    assert [samples / RATE for _, samples in listener.shapes] == [5.0, 2.0]


class Compiled(Listener):
    """A listener that says how much memory its batches take, and what was compiled."""

    def __init__(self, bytes_of_a_row, rows_that_compile=1000):
        super().__init__()
        self.compiled, self._each, self._most = [], bytes_of_a_row, rows_that_compile

    def needed(self, values, mask):
        self.compiled.append(values.shape)
        if len(values) > self._most:
            raise RuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm.")
        return len(values) * self._each


@pytest.mark.parametrize(
    ("listener", "room"),
    [(Compiled(100), 450), (Compiled(100, rows_that_compile=4), None)],
    ids=["budget", "compiler"],
)
def test_every_shape_is_compiled_before_the_first_batch_with_the_rows_that_fit(listener, room):
    said = []
    listening = Listening(FEATURES, longest=4.0, buckets=(1.0, 4.0))
    transcriber = Transcriber(listening, listener, batch_size=8)
    prepare(transcriber, room, said.append)
    assert said == [
        "compiling 1 of 2: 8 x 4 s",
        "not enough memory for batches of 8: going on with 4",
        "compiling 2 of 2: 4 x 1 s",
    ]
    list(transcriber.stream([sound(s) for s in (1, 1, 1, 4, 3, 1, 1, 1)]))
    assert set(listener.shapes) == {(4, 4 * RATE), (4, RATE)}
    assert set(listener.compiled) == {(8, 4 * RATE), *listener.shapes}


def test_the_smallest_batch_is_tried_whatever_memory_seems_to_be_free():
    listener = Compiled(100)
    transcriber = Transcriber(Listening(FEATURES, buckets=(1.0,)), listener, batch_size=8)
    transcriber.row_multiple = 2
    prepare(transcriber, 1, lambda line: None)
    assert transcriber.batch_size == transcriber.least_rows == 2
