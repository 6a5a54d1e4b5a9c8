"""Sources other than manifests, and filters of their rows."""

import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from speech import RATE, tone, write_manifest

from speech_ed_flax.data.clips import ClipReader
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.filters import Filter
from speech_ed_flax.data.rows import Fault, Row
from speech_ed_flax.data.sources import scan_source
from speech_ed_flax.data.span import Span
from speech_ed_flax.errors import ConfigError


def sound(seconds: float = 0.2, kind: str = "WAV") -> bytes:
    content = io.BytesIO()
    soundfile.write(content, tone(seconds), RATE, format=kind, subtype="PCM_16")
    return content.getvalue()


def write_tar(path, files: dict[str, bytes], mode: str = "w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


SAMPLES = {
    "a/1.wav": sound(0.2),
    "a/1.txt": "grüß dich\n".encode(),
    "a/2.flac": sound(0.3, "FLAC"),
    "a/2.json": json.dumps({"text": "two", "language": "en", "speaker": "anna"}).encode(),
    "a/2.jpg": b"not heard",
}


@pytest.mark.parametrize(("name", "mode"), [("x.tar", "w"), ("x.tar.gz", "w:gz")])
def test_the_files_of_a_tar_shard_become_rows_by_their_names(tmp_path, name, mode):
    path = write_tar(tmp_path / name, SAMPLES, mode)
    first, second = scan_source(str(path))
    assert (first.id, first.text.strip(), first.line) == ("a/1", "grüß dich", 1)
    assert (second.id, second.text, second.language) == ("a/2", "two", "en")
    assert second.columns["speaker"] == "anna"
    assert isinstance(first.audio, Span if mode == "w" else bytes)
    heard = ClipReader(RATE).read(first)
    np.testing.assert_allclose(heard, tone(0.2), atol=1e-4)
    assert len(ClipReader(RATE).read(second)) == 0.3 * RATE


def test_faulty_samples_of_a_tar_shard_are_named(tmp_path):
    files = {"1.txt": b"x", "2.wav": sound(), "3.wav": sound(), "3.json": b"[]"}
    entries = list(scan_source(str(write_tar(tmp_path / "x.tar", files))))
    assert all(isinstance(entry, Fault) for entry in entries)
    assert [entry.id for entry in entries] == ["1", "2", "3"]
    assert [entry.reason for entry in entries] == [
        "no sound, but txt", "no text", "3.json is not a JSON object"
    ]  # fmt: skip


def test_a_damaged_tar_shard_is_refused_by_name(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"x\.tar: is no readable tar"):
        list(scan_source(str(path)))


def test_a_folder_stands_for_its_one_manifest_or_its_archives(tmp_path):
    write_manifest(tmp_path / "m", [0.1, 0.1])
    (tmp_path / "m" / "notes.csv").write_text("x")  # manifest.* is preferred
    assert len(list(scan_source(str(tmp_path / "m")))) == 2
    (tmp_path / "t").mkdir()
    write_tar(tmp_path / "t" / "0.tar", SAMPLES)
    write_tar(tmp_path / "t" / "1.tar", SAMPLES)
    assert [row.id for row in scan_source(str(tmp_path / "t"))] == ["a/1", "a/2"] * 2


def test_a_folder_that_could_mean_several_things_is_refused(tmp_path):
    (tmp_path / "a.tsv").touch()
    (tmp_path / "b.tsv").touch()
    with pytest.raises(DataError, match=r"several manifests, a\.tsv, b\.tsv"):
        list(scan_source(str(tmp_path)))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no manifest"):
        list(scan_source(str(tmp_path / "empty")))


def test_a_saved_hugging_face_data_set_is_read_without_its_decoder(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    cells = [{"bytes": sound(), "path": "a.wav"}, {"bytes": sound(), "path": None}]
    columns = {"audio": cells, "sentence": ["one", "two"], "speaker": ["anna", "ben"]}
    data = datasets.Dataset.from_dict(columns)
    data = data.cast_column("audio", datasets.Audio(decode=False))
    data.save_to_disk(tmp_path / "plain")
    datasets.DatasetDict({"dev": data}).save_to_disk(tmp_path / "split")
    for name in (str(tmp_path / "plain"), f"hf:{tmp_path / 'split'}::dev"):
        first, second = scan_source(name)
        assert (first.id, first.text, first.columns["speaker"]) == ("a.wav", "one", "anna")
        assert second.id.endswith("/2")
        assert len(ClipReader(RATE).read(first)) == 0.2 * RATE
    with pytest.raises(DataError, match="train"):
        list(scan_source(f"hf:{tmp_path / 'split'}"))


def test_filters_keep_or_leave_out_by_a_value_or_a_file_of_values(tmp_path):
    people = tmp_path / "people.txt"
    people.write_text("anna\n\nben\n")
    rows = {name: Row(name, "a.wav", "x", columns={"by": name}) for name in ("anna", "ben", "cy")}
    rows["none"] = Row("none", "a.wav", "x")

    def kept(text: str, keep: bool) -> list[str]:
        return [name for name, row in rows.items() if Filter.parse(text, keep).accepts(row)]

    assert kept(f"by={people}", keep=True) == ["anna", "ben"]
    assert kept(f"by={people}", keep=False) == ["cy", "none"]
    assert kept("by=cy", keep=True) == ["cy"]


@pytest.mark.parametrize("text", ["speaker", "=x", "speaker="])
def test_what_is_no_filter_is_refused(text):
    with pytest.raises(ConfigError, match="COLUMN=VALUE"):
        Filter.parse(text, keep=True)
