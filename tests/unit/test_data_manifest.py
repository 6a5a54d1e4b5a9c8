"""Manifests: every format, every name of a column, and every fault with its line."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.manifest import read_manifest
from speech_ed_flax.data.rows import Row
from speech_ed_flax.errors import ConfigError

DATA = Path(__file__).parents[3] / "shared/data"


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.jsonl", '{"audio": "a.wav", "text": "one two", "duration": 1.5, "language": "en"}\n'),
        (
            "m.json",
            '\n{"audio_filepath": "a.wav", "text": "one two", "duration": 1.5, "lang": "en"}',
        ),
        ("m.tsv", "path\tsentence\tseconds\tlocale\na.wav\tone two\t1.500\ten\n"),
        ("m.csv", 'file_name,transcription,duration,language\r\na.wav,"one two",1.5,en\r\n'),
        ("m.csv", "\ufefffile,text,seconds,language\na.wav,one two,1.5,en"),
    ],
)
def test_every_format_and_name_of_a_column_gives_the_same_row(tmp_path, name, content):
    manifest = read_manifest(write(tmp_path, name, content))
    assert manifest.faults == ()
    (row,) = manifest.rows
    assert row.audio == str(tmp_path / "a.wav")
    assert (row.id, row.text, row.duration, row.offset) == ("a.wav", "one two", 1.5, None)
    assert row.language == "en"


def test_paths_are_relative_to_the_manifest_or_to_the_root_that_is_named(tmp_path):
    path = write(tmp_path, "m.tsv", "audio\ttext\nx/a.wav\tone\n/y/b.wav\ttwo\n")
    assert [row.audio for row in read_manifest(path).rows] == [f"{tmp_path}/x/a.wav", "/y/b.wav"]
    assert read_manifest(path, "/else").rows[0].audio == "/else/x/a.wav"


def test_quotes_and_commas_in_a_tsv_mean_nothing(tmp_path):
    path = write(tmp_path, "m.tsv", 'audio\ttext\na.wav\t"he said, and\nb.wav\tshe "did"\n')
    assert [row.text for row in read_manifest(path).rows] == ['"he said, and', 'she "did"']


def test_rows_of_one_recording_are_named_by_their_offset(tmp_path):
    lines = [{"audio": "a.wav", "text": "x", "offset": at, "duration": 2} for at in (0, 2.5)]
    path = write(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines)))
    rows = read_manifest(path).rows
    assert [row.id for row in rows] == ["a.wav@0", "a.wav@2.5"]
    assert [row.offset for row in rows] == [0.0, 2.5]


def test_further_columns_are_kept_to_filter_by(tmp_path):
    path = write(tmp_path, "m.tsv", "audio\ttext\tspeaker\na.wav\tx\tanna\n")
    assert read_manifest(path).rows[0].columns["speaker"] == "anna"


FAULTS = {
    '{"text": "x"}': "no audio",
    '{"audio": "", "text": "x"}': "no audio",
    '{"audio": 5, "text": "x"}': "audio is not a path",
    '{"audio": "a.wav"}': "no text",
    '{"audio": "a.wav", "text": " \\n "}': "no text",
    '{"audio": "a.wav", "text": 7}': "text=7 is not text",
    '{"audio": "a.wav", "text": "\\ud800"}': "not UTF-8",
    '{"audio": "a.wav", "text": "x", "duration": "long"}': "duration='long' is not a number",
    '{"audio": "a.wav", "text": "x", "duration": -1}': "duration=-1 is not a number",
    '{"audio": "a.wav", "text": "x", "duration": NaN}': "duration=nan is not a number",
    '{"audio": "a.wav", "text": "x", "duration": true}': "duration=True is not a number",
    '{"audio": "a.wav", "text": "x", "duration": 0}': "nothing to hear",
    '{"audio": "a.wav", "text": "x", "offset": 3}': "needs a duration",
    "[1, 2]": "not a JSON object",
    "{": "no JSON",
}


@pytest.mark.parametrize("line", FAULTS)
def test_a_faulty_line_is_reported_with_its_number_and_the_others_are_read(tmp_path, line):
    sound = '{"audio": "a.wav", "text": "x"}'
    manifest = read_manifest(write(tmp_path, "m.jsonl", f"{sound}\n{line}\n{sound}\n"))
    assert [row.line for row in manifest.rows] == [1, 3]
    (fault,) = manifest.faults
    assert fault.line == 2
    assert FAULTS[line] in fault.reason


def test_a_text_that_is_not_utf8_is_a_fault_but_such_a_path_is_not(tmp_path):
    path = write(tmp_path, "m.tsv", b"audio\ttext\n\xff.wav\tx\na.wav\t\xff\n")
    manifest = read_manifest(path)
    assert [row.audio for row in manifest.rows] == [f"{tmp_path}/\udcff.wav"]
    assert manifest.faults[0].line == 3


def test_a_line_with_more_fields_than_names_is_a_fault(tmp_path):
    (fault,) = read_manifest(write(tmp_path, "m.csv", "audio,text\na.wav,x,y\n")).faults
    assert fault.reason == "3 fields under 2 names"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.tsv", "a.wav\thello\n", "columns must be named, among them audio and text"),
        ("m.parquet", "audio,text", "no Parquet file, or a damaged one"),
        ("missing.parquet", None, "No such file"),
        ("m.txt", "", "manifests end in"),
        ("missing.tsv", None, "No such file"),
    ],
)
def test_what_is_no_manifest_is_refused_by_name(tmp_path, name, content, message):
    path = tmp_path / name if content is None else write(tmp_path, name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_manifest(path)
    assert str(path) in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=120), suffix=st.sampled_from(["jsonl", "tsv", "csv"]))
def test_no_content_ends_in_anything_but_rows_faults_or_a_data_error(
    tmp_path_factory, content, suffix
):
    folder = tmp_path_factory.getbasetemp()
    heads = {"jsonl": b"", "tsv": b"audio\ttext\n", "csv": b"audio,text\n"}
    path = write(folder, f"fuzz.{suffix}", heads[suffix] + content)
    manifest = read_manifest(path)
    assert all(isinstance(row, Row) and row.text.strip() for row in manifest.rows)
    assert all(fault.line > 0 and fault.reason for fault in manifest.faults)


@pytest.mark.skipif(not DATA.is_dir(), reason="the recordings are not here")
@pytest.mark.parametrize(("name", "rows"), [("an4/train.tsv", 948), ("kathleen/metadata.tsv", 917)])
def test_real_manifests_are_read_as_they_are(name, rows):
    manifest = read_manifest(DATA / name)
    assert (len(manifest.rows), manifest.faults) == (rows, ())
    assert all(Path(row.audio).is_file() and row.duration for row in manifest.rows)


def test_parquet_holds_the_rows_that_any_manifest_does(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"audio": ["a.wav", None], "text": ["one", "two"], "duration": [1.5, 2.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "m.parquet")
    found = read_manifest(tmp_path / "m.parquet")
    table = read_manifest(write(tmp_path, "m.tsv", "audio\ttext\tduration\na.wav\tone\t1.5\n"))
    assert found.rows == tuple(
        replace(row, source=found.rows[0].source, line=1) for row in table.rows
    )
    assert [str(fault) for fault in found.faults] == [f"{tmp_path}/m.parquet, line 2: no audio"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'speech_ed_flax\[parquet\]'"):
        read_manifest(write(tmp_path, "m.parquet", b""))
