"""The command prepare on real files: what it writes, what it rejects, and how it ends."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech import RATE, tone, write_manifest

from speech_ed_flax.commands.outcome import Outcome, UsageError
from speech_ed_flax.commands.prepare import prepare
from speech_ed_flax.data.store import Store
from speech_ed_flax.errors import ConfigError

pytest.importorskip("array_record", reason="array_record is not installed")

AN4 = Path(__file__).parents[3] / "shared/data/an4"
BAD = {
    "missing.wav": "no such file",
    "junk.wav": "not a sound file but text",
    "cut.wav": r"the header says 16000 frames",
    "short.wav": "too short: 0.050 s",
    "long.wav": "31.0 s of sound, 30 s are accepted",
    "silent.wav": "silence: every sample is 0",
    "wrong.wav": "the row says 9.00 s, the recording has 0.50",
    "0.wav": "the id is that of",
    "blank.wav": "no text",
    "control.wav": "control characters",
}


@pytest.fixture
def good(tmp_path):
    return write_manifest(tmp_path / "raw", [0.5, 1.0, 0.25], speaker=["a", "b", "a"])


@pytest.fixture
def spoiled(good):
    """The same manifest with a row for everything that can be wrong with one."""
    folder = good.parent
    for name, seconds in (("short", 0.05), ("long", 31.0), ("wrong", 0.5), ("control", 0.5)):
        soundfile.write(folder / f"{name}.wav", tone(seconds), RATE)
    soundfile.write(folder / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "cut.wav", tone(1.0), RATE, subtype="PCM_16")
    (folder / "cut.wav").write_bytes((folder / "cut.wav").read_bytes()[:9_000])
    (folder / "junk.wav").write_text("no sound")
    more = {"wrong.wav": {"duration": 9}, "blank.wav": {"text": " "}, "control.wav": {"text": "\1"}}
    rows = [{"audio": name, "text": "x", "speaker": "c"} | more.get(name, {}) for name in BAD]
    good.write_text(good.read_text() + "\n".join(map(json.dumps, rows)) + "\n")
    return good


def rejected(path: Path) -> dict[str, str]:
    """Returns the reason of every row of a list of rejected ones, by id."""
    head, *lines = path.read_text().splitlines()
    assert head.split("\t") == ["source", "line", "id", "reason"]
    return {line.split("\t")[2]: line.split("\t")[3] for line in lines}


@pytest.mark.parametrize("workers", [0, 1])
def test_good_rows_are_packed_and_counted(good, tmp_path, capsys, workers):
    assert prepare([str(good)], output=tmp_path / "out", workers=workers) == Outcome.DONE
    assert "3 rows, 0.00 hours, 0 rejected" in capsys.readouterr().out
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["index.json", "rows.npz", "sound-00000.array_record"]
    store, plain = Store.open(tmp_path / "out"), Store.open(good)
    for row in range(3):
        np.testing.assert_array_equal(store.samples(row), plain.samples(row))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "raw"]


def test_every_bad_row_is_listed_with_its_reason_and_the_others_are_packed(
    spoiled, tmp_path, capsys
):
    outcome = prepare([str(spoiled)], output=tmp_path / "out", workers=1)
    assert outcome == Outcome.SOME_FAILED
    assert Store.open(tmp_path / "out").ids == ["0.wav", "1.wav", "2.wav"]
    reasons = rejected(tmp_path / "out" / "rejected.tsv")
    assert reasons.keys() == BAD.keys()
    for name, reason in BAD.items():
        assert reason in reasons[name]
    said = capsys.readouterr()
    assert "3 rows, 0.00 hours, 10 rejected" in said.out
    assert "5 more are in" in said.err


def test_nothing_but_the_list_is_written_if_too_many_rows_are_bad(spoiled, tmp_path, capsys):
    output = tmp_path / "out"
    outcome = prepare([str(spoiled)], output=output, workers=0, max_bad_fraction=0.5)
    assert outcome == Outcome.ALL_FAILED
    assert not output.exists()
    assert len(rejected(tmp_path / "out.rejected.tsv")) == len(BAD)
    assert "10 of 13 rows are rejected" in capsys.readouterr().err


def test_no_good_row_at_all_ends_with_the_code_of_total_failure(tmp_path, capsys):
    path = tmp_path / "m.jsonl"
    path.write_text('{"audio": "gone.wav", "text": "x"}\n')
    assert prepare([str(path)], output=tmp_path / "out", workers=0) == Outcome.ALL_FAILED
    assert not (tmp_path / "out").exists()
    path.write_text("")
    assert prepare([str(path)], output=tmp_path / "out", workers=0) == Outcome.ALL_FAILED
    assert "not written, no row is left" in capsys.readouterr().err


def test_rows_are_chosen_by_their_columns(good, tmp_path, capsys):
    prepare([str(good)], output=tmp_path / "a", where=["speaker=a"], workers=0)
    assert Store.open(tmp_path / "a").ids == ["0.wav", "2.wav"]
    (tmp_path / "people.txt").write_text("a\n")
    without = [f"speaker={tmp_path / 'people.txt'}"]
    prepare([str(good)], output=tmp_path / "b", without=without, workers=0)
    assert Store.open(tmp_path / "b").ids == ["1.wav"]
    assert "0 rejected, 2 left out" in capsys.readouterr().out
    with pytest.raises(UsageError, match="no row has a column 'spaeker'"):
        prepare([str(good)], output=tmp_path / "c", where=["spaeker=a"], workers=0)
    with pytest.raises(ConfigError, match="is no filter"):
        prepare([str(good)], output=tmp_path / "c", where=["speaker"], workers=0)
    assert not (tmp_path / "c").exists()


def test_sound_is_resampled_and_texts_are_cleaned(good, tmp_path):
    row = {"audio": "0.wav", "text": "  Gru\u0308\u00df \t  DICH ", "language": "de"}
    good.write_text(json.dumps(row) + "\n")
    prepare([str(good)], output=tmp_path / "out", rate=8_000, text="lower", workers=0)
    store = Store.open(tmp_path / "out", rate=8_000)
    assert (store.texts, store.languages) == (["grüß dich"], ["de"])
    assert len(store.samples(0)) == 4_000


def test_parts_of_one_recording_are_packed_as_rows_of_their_own(good, tmp_path):
    parts = [{"audio": "1.wav", "text": "x", "offset": at, "duration": 0.5} for at in (0, 0.5)]
    good.write_text("\n".join(map(json.dumps, parts)))
    prepare([str(good)], output=tmp_path / "out", workers=0)
    store, whole = Store.open(tmp_path / "out"), soundfile.read(good.parent / "1.wav")[0]
    assert store.ids == ["1.wav@0", "1.wav@0.5"]
    np.testing.assert_allclose(store.samples(1), whole[8_000:], atol=1e-6)


def test_nothing_is_overwritten(good, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(UsageError, match="it is not empty"):
        prepare([str(good)], output=tmp_path / "out", workers=0)
    with pytest.raises(UsageError, match="it is a file"):
        prepare([str(good)], output=good, workers=0)


@pytest.mark.skipif(not AN4.is_dir(), reason="the recordings are not here")
def test_real_speech_is_prepared_without_the_speakers_that_are_kept_out(tmp_path):
    without = [f"speaker={AN4 / 'dev_speakers.txt'}"]
    assert prepare([str(AN4)], output=tmp_path / "out", without=without) == Outcome.DONE
    store = Store.open(tmp_path / "out")
    assert len(store) == 948 - 98
    assert not any("-fash-" in name for name in store.ids)
