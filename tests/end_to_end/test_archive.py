"""The command ``transcribe`` on what archives are made of: manifests, shards, patterns, hours."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile
from guesser import guesser
from sounds import record
from worker_tasks import DeadlyListening

from speech_ed_flax.cli import main
from speech_ed_flax.commands.output import Files

RATE = 16_000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    guesser().save_pretrained(folder)
    return str(folder)


def transcribe(capsys, *arguments):
    """Returns the exit code, what JSON lines say, and what was said on stderr."""
    fixed = ["-f", "jsonl", "--log-prob-threshold", "-9"]
    code = main(["transcribe", *map(str, arguments), *fixed])
    out, err = capsys.readouterr()
    return code, [json.loads(line) for line in out.splitlines()], err


def test_a_manifest_names_recordings_and_parts_of_them(model, tmp_path, capsys):
    record(tmp_path / "calls/long.wav", 9), record(tmp_path / "calls/short.wav", 1)
    rows = [
        {"audio": "calls/long.wav", "offset": 0, "duration": 2},
        {"audio": "calls/long.wav", "offset": 5.5, "duration": 3},
        {"audio": "calls/short.wav", "text": "one"},
        {"audio": "calls/long.wav", "offset": 8, "duration": 3},
        {"offset": 3},
    ]
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    code, found, err = transcribe(capsys, manifest, "-m", model)
    assert code == 3
    assert [round(one["duration"], 2) for one in found[:3]] == [2, 3, 1]
    assert found[0]["source"] == "calls/long.wav@0"
    assert "it ends at 9.00 s, its part at 11.00 s" in found[3]["error"]
    assert "rows.jsonl, line 5: no audio" in err

    out = tmp_path / "out"
    code, _, _ = transcribe(capsys, manifest, "-m", model, "-o", out)
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.jsonl"))
    assert written == ["calls/long.wav@0.jsonl", "calls/long.wav@5.5.jsonl", "calls/short.jsonl"]


def test_clips_are_padded_as_little_as_a_manifest_allows(model, tmp_path, capsys):
    rows = []
    for number, seconds in enumerate([1, 1, 1, 1.6]):
        record(tmp_path / f"{number}.wav", seconds)
        rows.append({"audio": f"{number}.wav", "duration": seconds})
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    padding = []
    for most in (1, 2):
        code, _, err = transcribe(
            capsys, manifest, "-m", model, "--batch-size", "1", "--max-shapes", most
        )
        assert code == 0
        padding.append(int(re.search(r"padding (\d+) %", err)[1]))
    assert padding == [28, 0]


def test_an_archive_is_read_without_being_unpacked(model, tmp_path, capsys):
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for name in ("a", "b"):
            content = record(tmp_path / f"{name}.wav").read_bytes()
            member = tarfile.TarInfo(f"{name}.wav")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    code, found, _ = transcribe(capsys, tmp_path / "shard.tar", "-m", model)
    assert code == 0
    assert [one["source"] for one in found] == ["a", "b"]


def test_a_pattern_stands_for_what_it_matches(model, tmp_path, capsys):
    for name in ("b.wav", "a.wav", "c.flac"):
        record(tmp_path / name)
    code, found, _ = transcribe(capsys, tmp_path / "*.wav", "-m", model)
    assert code == 0
    assert [one["source"] for one in found] == [str(tmp_path / n) for n in ("a.wav", "b.wav")]
    code, found, err = transcribe(capsys, tmp_path / "*.opus", "-m", model)
    assert (code, found) == (4, [])
    assert "matches no file" in err


def test_a_recording_on_stdin_is_heard(model, tmp_path, capsys, monkeypatch):
    content = record(tmp_path / "a.wav", 1).read_bytes()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, (found,), _ = transcribe(capsys, "-", "-m", model)
    assert (code, found["source"], found["duration"]) == (0, "stdin", 1.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(model, tmp_path, capsys, workers):
    for number in range(6):
        record(tmp_path / f"{number}.wav", 0.5 + number)
    (tmp_path / "bad.wav").write_text("no sound")
    record(tmp_path / "long.wav", 100)
    code, found, err = transcribe(capsys, tmp_path, "-m", model, "--workers", workers)
    assert code == 3
    assert [one["source"] for one in found] == sorted(one["source"] for one in found)
    assert "bad.wav: not a sound file" in err
    assert len(found[-1]["segments"]) == 4
    alone = transcribe(capsys, tmp_path / "3.wav", "-m", model, "--batch-size", 1)[1]
    assert [alone[0]["text"]] == [one["text"] for one in found if one["source"].endswith("3.wav")]


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    """A folder of a hundred recordings."""
    folder = tmp_path_factory.mktemp("hundred")
    for number in range(100):
        record(folder / f"{number:02}.flac", 0.3 + number % 7 / 4)
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_one_bad_recording_of_a_hundred_costs_one_line(
    model, hundred, workers, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("speech_ed_flax.pretrained.Listening", DeadlyListening)
    arguments = ["-m", model, "--workers", workers]
    _, expected, _ = transcribe(capsys, hundred, *arguments)
    assert len(expected) == 100

    content = (hundred / "50.flac").read_bytes()
    bad = tmp_path / ("deadly.flac" if workers else "cut.flac")
    bad.write_bytes(content if workers else content[: len(content) // 2])
    halves = [sorted(hundred.glob(f"[{digits}]*")) for digits in ("0-4", "5-9")]
    code, found, err = transcribe(capsys, *halves[0], bad, *halves[1], *arguments)
    assert code == 3
    (failed,) = [one for one in found if one["error"]]
    assert failed["source"] == str(bad)
    assert [one for one in found if one is not failed] == expected
    assert [line for line in err.splitlines() if "error" in line] == [f"error: {failed['error']}"]
    assert "100 transcribed, 1 failed" in err


def test_alternatives_words_and_scores_are_there_on_request(model, tmp_path, capsys):
    recording = record(tmp_path / "a.wav", 2)
    truth = tmp_path / "truth.tsv"
    truth.write_text("audio\ttext\na.wav\tone two three\n")
    asked = ["--n-best", 2, "--beam-size", 3, "--word-timestamps", "--reference", truth]
    code, (found,), err = transcribe(capsys, recording, "-m", model, *asked)
    assert code == 0
    (segment,) = found["segments"]
    assert len(segment["alternatives"]) == 2
    scores = [segment["avg_log_prob"], *(o["avg_log_prob"] for o in segment["alternatives"])]
    assert scores == sorted(scores, reverse=True)
    assert [word["text"] for word in segment["words"]] == found["text"].split()
    times = [time for word in segment["words"] for time in (word["start"], word["end"])]
    assert times == sorted(times)
    assert 0 <= times[0] <= times[-1] <= 2
    assert "1 of 1 compared: WER" in err


def test_where_nobody_speaks_there_is_no_text(model, tmp_path, capsys):
    noise = 0.05 * np.random.default_rng(0).standard_normal(5 * RATE)
    soundfile.write(tmp_path / "noise.wav", noise, RATE)
    code, (found,), _ = transcribe(capsys, tmp_path / "noise.wav", "-m", model)
    assert (code, found["text"], found["segments"]) == (0, "", [])


def test_a_recording_of_hours_is_held_a_page_at_a_time(model, tmp_path, capsys, monkeypatch):
    from speech_ed_flax.transcription import listening

    pending = []

    def counted(*arguments, **settings):
        for block in original(*arguments, **settings):
            pending.append(len(block))
            yield block

    original = listening.stream_audio
    monkeypatch.setattr(listening, "stream_audio", counted)
    heard_before = []
    take = listening.Listening._clip

    def clip(self, start, samples):
        heard_before.append(sum(pending) / RATE - start)
        return take(self, start, samples)

    monkeypatch.setattr(listening.Listening, "_clip", clip)
    record(tmp_path / "long.wav", 600)
    code, (found,), _ = transcribe(capsys, tmp_path / "long.wav", "-m", model)
    assert code == 0
    assert len(found["segments"]) == 20
    assert max(heard_before) < 95  # seconds: a stretch, and the pages that it ends in


def test_shards_are_all_recordings_each_once_and_as_long(model, tmp_path, capsys):
    for number in range(7):
        record(tmp_path / f"{number}.wav", 0.5 * (number + 1))
    parts = []
    for shard in ("1/3", "2/3", "3/3"):
        code, found, _ = transcribe(capsys, tmp_path, "-m", model, "--shard", shard)
        assert code == 0
        parts.append([(one["source"], one["duration"]) for one in found])
    everything = sorted(source for part in parts for source, _ in part)
    assert everything == [str(tmp_path / f"{number}.wav") for number in range(7)]
    seconds = [sum(duration for _, duration in part) for part in parts]
    assert max(seconds) - min(seconds) <= 2.0


@pytest.mark.parametrize("shard", ["0/2", "3/2", "2", "a/b", "1/0"])
def test_a_shard_that_is_none_is_refused(model, tmp_path, capsys, shard):
    code, _, err = transcribe(capsys, record(tmp_path / "a.wav"), "-m", model, "--shard", shard)
    assert code == 2
    assert f"--shard {shard}" in err


def test_devices_that_share_batches_and_weights_change_nothing(model, tmp_path, capsys):
    for number in range(5):
        record(tmp_path / f"{number}.wav", 1 + number)
    _, alone, _ = transcribe(capsys, tmp_path, "-m", model)
    command = [sys.executable, "-m", "speech_ed_flax", "transcribe", str(tmp_path), "-m", model]
    command += ["-f", "jsonl", "--log-prob-threshold", "-9", "--tensor", "2"]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"
    environment = os.environ | {"XLA_FLAGS": flags}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    shared = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["text"] for one in shared] == [one["text"] for one in alone]


def test_many_recordings_have_every_shape_compiled_first(model, tmp_path, capsys):
    rows = []
    for number in range(17):
        record(tmp_path / f"{number}.wav", 1 + number % 2)
        rows.append({"audio": f"{number}.wav", "duration": 1 + number % 2})
    manifest = tmp_path / "rows.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    code, found, err = transcribe(capsys, manifest, "-m", model, "--batch-size", "4")
    assert (code, len(found)) == (0, 17), err
    assert err.splitlines()[:2] == ["compiling 1 of 2: 4 x 2 s", "compiling 2 of 2: 4 x 1 s"]
    code, again, err = transcribe(capsys, manifest, "-m", model, "--memory", "1e-9")
    assert "not enough memory for batches of 2: going on with 1" in err
    assert [one["text"] for one in again] == [one["text"] for one in found]


@pytest.fixture
def ctrl_c():
    """Has Ctrl-C heard, which workers of pytest-xdist ignore; returns its handler."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_finishes_what_has_begun_and_the_same_command_does_the_rest(
    model, tmp_path, capsys, monkeypatch, ctrl_c
):
    names = {f"{number}.txt" for number in range(6)}
    for name in names:
        record((tmp_path / "in" / name).with_suffix(".wav"))
    end = Files.end
    pressed = []

    def press_once(self, transcript):
        end(self, transcript)
        if not pressed:
            pressed.append(signal.raise_signal(signal.SIGINT))

    monkeypatch.setattr(Files, "end", press_once)
    out = tmp_path / "out"
    command = ["transcribe", str(tmp_path / "in"), "-m", model, "-o", str(out), "--skip-existing"]
    assert main([*command, "--batch-size", "1"]) == 130
    assert "stopping after the recordings that have begun" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is ctrl_c
    done = {path.name for path in out.iterdir()}
    assert done
    assert done < names
    assert main(command) == 0
    assert {path.name for path in out.iterdir()} == names
