"""The command line on real files: streams, exit codes, outputs, one line an error."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from guesser import WORDS, guesser
from sounds import record

from speech_ed_flax.cli import main
from speech_ed_flax.commands import doctor as doctor_module
from speech_ed_flax.commands.output import FORMATS, Printer, render
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.transcription import Segment, Transcript

SCRIPT = Path(sys.executable).with_name("speech-ed-flax")
SHARED = Path(__file__).parents[3] / "shared"
WHISPER = SHARED / "checkpoints/whisper-tiny.en"
SPEECH = SHARED / "data/kathleen/flac/arctic_a0001_1592748574.flac"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    guesser().save_pretrained(folder)
    return str(folder)


def junk(path):
    path.write_bytes(b"\x01\x02 no sound at all \x03" * 20)
    return path


GUESSES = ("--log-prob-threshold", "-9")
"""Lets a model speak that is sure of nothing."""


def transcribe(*arguments):
    return main(["transcribe", *map(str, arguments), *GUESSES])


def error_lines(capsys):
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


# --- the script itself ----------------------------------------------------------------------------


def test_help_imports_neither_jax_nor_transformers_nor_flax():
    program = (
        "import sys; from speech_ed_flax.cli import main; code = main(['--help'])\n"
        "heavy = ('jax', 'transformers', 'flax', 'soundfile', 'numpy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "sys.exit(code)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "transcribe" in ran.stdout
    assert ran.stdout.endswith("\n[]\n")


def test_the_script_gives_the_text_alone_on_stdout_and_a_summary_on_stderr(model, tmp_path):
    recording = record(tmp_path / "a.wav")
    ran = subprocess.run(
        [SCRIPT, "transcribe", recording, "-m", model, *GUESSES], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert set(ran.stdout.split()) <= set(WORDS[4:])
    assert ran.stdout.count("\n") == 1
    (summary,) = ran.stderr.splitlines()
    assert summary.startswith("1 transcribed: 0.5 s of audio in ")
    assert "RTFx" in summary


@pytest.mark.skipif(not SPEECH.exists(), reason="needs ../shared: a real checkpoint and recording")
def test_real_speech_is_recognised_among_files_that_fail(tmp_path):
    bad = junk(tmp_path / "bad.wav")
    command = [SCRIPT, "transcribe", SPEECH, bad, tmp_path / "missing.wav", "-m", WHISPER]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 3, ran.stderr
    assert ran.stdout == f"{SPEECH}\tAuthor of the danger trail, Philip steals, etc.\n"
    first, second, summary = ran.stderr.splitlines()
    assert first.startswith(f"error: {bad}: not a sound file")
    assert second.startswith(f"error: {tmp_path / 'missing.wav'}: no such file")
    assert summary.startswith("1 transcribed, 2 failed: 3.3 s of audio")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pipes that break so")
def test_a_reader_that_goes_away_is_no_error_of_ours():
    read, write = os.pipe()
    os.close(read)
    program = (
        "import sys; from speech_ed_flax import cli\n"
        "cli.app.command(lambda: print('a result'), name='say')\n"
        "sys.exit(cli.main(['say']))"
    )
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert ran.returncode == 141
    assert ran.stderr == ""


# --- transcribe: stdout ---------------------------------------------------------------------------


def test_several_files_give_a_line_each_in_the_order_of_the_arguments(model, tmp_path, capsys):
    files = [record(tmp_path / name, seconds) for name, seconds in (("b.wav", 0.9), ("a.wav", 0.3))]
    assert transcribe(*files, "-m", model, "--batch-size", 1) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _ in lines] == [str(file) for file in files]
    assert all(len(text.split()) == 3 for _, text in lines)


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_json_is_an_object_a_line_and_has_those_that_failed(model, tmp_path, capsys, kind):
    good, bad = record(tmp_path / "a.wav"), junk(tmp_path / "b.wav")
    assert transcribe(good, bad, "-m", model, "-f", kind) == 3
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["source"] == str(good)
    assert first["error"] is None
    assert first["duration"] == 0.5
    (segment,) = first["segments"]
    assert (segment["start"], segment["end"], segment["text"]) == (0.0, 0.5, first["text"])
    assert segment["avg_log_prob"] < 0
    assert 0 < segment["compression_ratio"] < 2
    assert second["error"].startswith(f"{bad}: not a sound file")
    assert second["text"] == ""


def test_every_kind_of_recording_is_heard_and_an_empty_file_is_not(model, tmp_path, capsys):
    heard = [
        record(tmp_path / "stereo.wav", rate=44_100, channels=2),
        record(tmp_path / "music.mp3", rate=44_100),
        record(tmp_path / "telephone.wav", rate=8_000),
        record(tmp_path / "plain.flac"),
    ]
    empty = tmp_path / "empty.wav"
    empty.touch()
    assert transcribe(*heard, empty, "-m", model, "-f", "jsonl") == 3
    out, err = capsys.readouterr()
    *good, bad = map(json.loads, out.splitlines())
    assert [one["duration"] for one in good] == pytest.approx([0.5] * 4, abs=0.06)
    assert all(one["text"] for one in good)
    assert "an empty file" in bad["error"]
    assert f"error: {bad['error']}" in err.splitlines()


def test_a_clip_shorter_than_a_frame_has_no_text_and_is_no_error(model, tmp_path, capsys):
    clip = record(tmp_path / "click.wav", seconds=0.01)
    assert transcribe(clip, "-m", model) == 0
    out, err = capsys.readouterr()
    assert out == "\n"
    assert "error" not in err


def test_settings_of_generation_reach_the_model(model, tmp_path, capsys):
    recording = record(tmp_path / "a.wav")
    settings = ["--max-new-tokens", 5, "--beam-size", 2, "--dtype", "bfloat16", "-q"]
    assert transcribe(recording, "-m", model, *settings) == 0
    out, err = capsys.readouterr()
    assert len(out.split()) in (4, 5)  # the last of them may be the end
    assert err == ""


# --- transcribe: files ----------------------------------------------------------------------------


def test_all_formats_are_written_and_nothing_else_is_left(model, tmp_path, capsys):
    recording, out = record(tmp_path / "a.b.wav"), tmp_path / "out"
    assert transcribe(recording, "-m", model, "-o", out, "-f", "all") == 0
    assert capsys.readouterr().out == ""
    assert sorted(path.name for path in out.iterdir()) == sorted(f"a.b.{k}" for k in FORMATS)
    text = (out / "a.b.txt").read_text().strip()
    assert json.loads((out / "a.b.json").read_text())["text"] == text
    assert json.loads((out / "a.b.jsonl").read_text())["text"] == text
    assert (out / "a.b.srt").read_text() == f"1\n00:00:00,000 --> 00:00:00,500\n{text}\n"
    assert (out / "a.b.tsv").read_text() == f"start\tend\ttext\n0\t500\t{text}\n"


def test_a_recording_that_fails_leaves_no_file(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert transcribe(junk(tmp_path / "a.wav"), "-m", model, "-o", out) == 4
    assert list(out.iterdir()) == []
    (line,) = error_lines(capsys)
    assert str(tmp_path / "a.wav") in line


def test_a_tree_is_kept_and_only_its_sound_is_read(model, tmp_path):
    tree, out = tmp_path / "tree", tmp_path / "out"
    for name in ("x/same.wav", "y/same.FLAC", "top.wav"):
        record(tree / name)
    (tree / "notes.txt").write_text("no sound")
    junk(tree / ".hidden.wav")
    assert transcribe(tree, "-m", model, "-o", out, "--recursive") == 0
    written = sorted(str(path.relative_to(out)) for path in out.rglob("*.*"))
    assert written == ["top.txt", "x/same.txt", "y/same.txt"]


def test_a_folder_without_recursive_is_its_own_files_in_order(model, tmp_path, capsys):
    for name in ("b.wav", "a.wav", "below/c.wav"):
        record(tmp_path / name)
    assert transcribe(tmp_path, "-m", model) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [Path(line.split("\t")[0]).name for line in lines] == ["a.wav", "b.wav"]


def test_results_of_one_name_are_refused_before_anything_is_run(tmp_path, capsys):
    first, second = record(tmp_path / "x/a.wav"), record(tmp_path / "y/a.wav")
    assert transcribe(first, second, "-m", tmp_path / "nowhere", "-o", tmp_path / "out") == 2
    (line,) = error_lines(capsys)
    assert str(first) in line
    assert str(second) in line
    assert not (tmp_path / "out").exists()


def test_existing_results_are_kept_without_even_loading_the_model(model, tmp_path, capsys):
    first, second, out = record(tmp_path / "a.wav"), record(tmp_path / "b.wav"), tmp_path / "out"
    out.mkdir()
    (out / "a.txt").write_text("mine")
    assert transcribe(first, second, "-m", model, "-o", out, "--skip-existing") == 0
    assert (out / "a.txt").read_text() == "mine"
    assert "1 transcribed, 1 kept" in capsys.readouterr().err
    assert transcribe(first, second, "-m", "./nowhere", "-o", out, "--skip-existing") == 0


# --- transcribe: what fails -----------------------------------------------------------------------


def test_stop_ends_at_the_first_that_fails(model, tmp_path, capsys):
    files = [record(tmp_path / "a.wav"), junk(tmp_path / "b.wav"), record(tmp_path / "c.wav")]
    assert transcribe(*files, "-m", model, "--on-error", "stop") == 3
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [str(files[0])]
    assert "1 transcribed, 1 failed" in err


def test_if_all_fail_the_exit_code_says_so(model, tmp_path, capsys):
    assert transcribe(junk(tmp_path / "a.wav"), tmp_path / "none.wav", "-m", model) == 4
    assert len(error_lines(capsys)) == 2


def test_a_folder_without_sound_counts_as_a_failure(model, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert transcribe(tmp_path / "empty", "-m", "./nowhere") == 4
    assert "holds no recording" in capsys.readouterr().err
    assert transcribe(tmp_path / "empty", record(tmp_path / "a.wav"), "-m", model) == 3


def test_a_truncated_file_is_transcribed_only_on_request(model, tmp_path, capsys):
    whole = record(tmp_path / "whole.wav").read_bytes()
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole[: len(whole) // 2])
    assert transcribe(cut, "-m", model) == 4
    assert "--allow-truncated" in error_lines(capsys)[0]
    assert transcribe(cut, "-m", model, "--allow-truncated") == 0
    out, err = capsys.readouterr()
    assert out.strip()
    assert f"warning: {cut}" in err


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all"])
def test_a_model_that_is_not_there_ends_with_four_and_one_line(tmp_path, capsys, name):
    assert transcribe(record(tmp_path / "a.wav"), "-m", name) == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: ")


def test_what_the_model_cannot_do_ends_with_four(model, tmp_path, capsys):
    assert transcribe(record(tmp_path / "a.wav"), "-m", model, "--language", "en") == 4
    (line,) = error_lines(capsys)
    assert "language" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["transcribe", "-m", "model"],
        ["transcribe", "a.wav", "-m", "model", "--beam-size", "0"],
        ["transcribe", "a.wav", "-m", "model", "--beamsize", "2"],
        ["transcribe", "a.wav", "-m", "model", "-f", "docx"],
        ["transcribe", "a.wav", "-m", "model", "-f", "all"],
        ["transcribe", "a.wav", "b.wav", "-m", "model", "-f", "srt"],
        ["transcribe", "a.wav", "-m", "model", "--skip-existing"],
    ],
)
def test_mistakes_in_the_arguments_end_with_two_and_one_line(capsys, arguments):
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def fail_to_load(monkeypatch, error):
    def from_pretrained(*arguments, **settings):
        raise error

    monkeypatch.setattr(FlaxSpeechEncoderDecoderModel, "from_pretrained", from_pretrained)


def test_the_unexpected_is_one_line_and_a_traceback_only_with_debug(tmp_path, capsys, monkeypatch):
    fail_to_load(monkeypatch, KeyError("surprise"))
    recording = record(tmp_path / "a.wav")
    assert transcribe(recording, "-m", "x") == 1
    err = capsys.readouterr().err
    assert err == "error: KeyError: 'surprise' (run with --debug for details)\n"
    assert main(["--debug", "transcribe", str(recording), "-m", "x"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_interruption_ends_as_a_shell_expects(tmp_path, capsys, monkeypatch):
    fail_to_load(monkeypatch, KeyboardInterrupt())
    assert transcribe(record(tmp_path / "a.wav"), "-m", "x") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    taken = junk(tmp_path / "taken")
    assert transcribe(record(tmp_path / "a.wav"), "-m", "x", "-o", taken) == 1
    assert error_lines(capsys) == [f"error: {taken}: File exists"]


# --- formats --------------------------------------------------------------------------------------

LONG = Transcript(
    "talk.wav",
    "before\tafter what --> that",
    (Segment(0.0, 1.2345, "before\tafter"), Segment(3661.5, 3690.0, "what --> that")),
    3690.0,
)


def test_subtitles_have_hours_and_nothing_that_looks_like_their_times():
    assert render(LONG, "srt") == (
        "1\n00:00:00,000 --> 00:00:01,234\nbefore after\n\n"
        "2\n01:01:01,500 --> 01:01:30,000\nwhat -> that\n"
    )
    assert render(LONG, "vtt") == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nbefore after\n\n"
        "01:01:01.500 --> 01:01:30.000\nwhat -> that\n"
    )


def test_tables_have_milliseconds_and_no_tab_in_a_text():
    assert render(LONG, "tsv") == (
        "start\tend\ttext\n0\t1234\tbefore after\n3661500\t3690000\twhat --> that\n"
    )


def test_silence_is_an_empty_result_in_every_format():
    silence = Transcript("quiet.wav", duration=1.0)
    contents = {kind: render(silence, kind) for kind in FORMATS}
    assert contents["txt"] == "\n"
    assert contents["srt"] == ""
    assert contents["vtt"] == "WEBVTT\n"
    assert json.loads(contents["json"])["segments"] == []


def test_a_file_name_that_is_not_utf8_still_makes_json(monkeypatch):
    printed = io.StringIO()
    monkeypatch.setattr(sys, "stdout", printed)
    Printer("json", several=False).end(Transcript("caf\udce9.wav"))
    printed.getvalue().encode("utf-8")
    assert json.loads(printed.getvalue())["source"] == "caf\udce9.wav"


# --- doctor and version ---------------------------------------------------------------------------


def test_version_names_what_results_depend_on(capsys):
    assert main(["--version"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names[:3] == ["speech_ed_flax", "python", "jax"]
    assert {"flax", "transformers", "safetensors"} <= set(names)


def test_doctor_finds_a_working_installation_and_one_that_is_not(capsys, monkeypatch):
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith("ok ") for line in lines)
    assert "4 tokens" in lines[-1]

    def broken():
        raise RuntimeError("no device\nand a long story")

    monkeypatch.setattr(doctor_module, "_devices", broken)
    assert main(["doctor"]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("ok ")]
    assert failed == ["fail  devices: RuntimeError: no device"]


def test_ray_that_is_not_installed_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    command = ["transcribe", str(record(tmp_path / "a.wav")), "-o", str(tmp_path / "out")]
    assert main([*command, "--engine", "ray"]) == 4
    assert "pip install 'speech_ed_flax[ray]'" in capsys.readouterr().err
    assert main([*command, "--actors", "2"]) == 2
    assert "--actors is for --engine ray" in capsys.readouterr().err
    assert main([*command, "--ray-address", "auto"]) == 2
    assert "--ray-address is for --engine ray" in capsys.readouterr().err
