"""A prepared folder and a manifest are the same store; what is damaged is refused."""

import json
import pickle

import numpy as np
import pytest
import soundfile
from speech import RATE, tone, write_manifest

from speech_ed_flax.data import extras
from speech_ed_flax.data.errors import DataError
from speech_ed_flax.data.manifest import scan_manifest
from speech_ed_flax.data.packed import encode
from speech_ed_flax.data.packing import Packer
from speech_ed_flax.data.prepare import Checks, prepare
from speech_ed_flax.data.store import Store
from speech_ed_flax.errors import AudioError, ConfigError

SECONDS = [0.5, 1.0, 0.25]


@pytest.fixture
def manifest(tmp_path):
    return write_manifest(tmp_path / "raw", SECONDS, language=["en", None, "fr"])


@pytest.fixture
def folder(manifest, tmp_path):
    pytest.importorskip("array_record", reason="array_record is not installed")
    folder = tmp_path / "prepared"
    folder.mkdir()
    prepare(scan_manifest(manifest), folder, Checks(), workers=0)
    return folder


def test_a_prepared_folder_and_its_manifest_are_the_same_store(manifest, folder):
    plain, packed = Store.open(manifest), Store.open(folder)
    assert plain.ids == packed.ids == ["0.wav", "1.wav", "2.wav"]
    assert plain.texts == packed.texts == ["row 0", "row 1", "row 2"]
    assert plain.languages == packed.languages == ["en", None, "fr"]
    assert plain.durations.tolist() == packed.durations.tolist() == SECONDS
    assert plain.digest == packed.digest
    for row in range(3):
        np.testing.assert_array_equal(plain.samples(row), packed.samples(row))
        assert plain.samples(row).dtype == np.float32


def test_a_store_can_be_pickled_with_open_files(folder):
    store = Store.open(folder)
    heard = store.samples(1)
    copied = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(copied.samples(1), heard)


def test_shards_of_any_size_hold_the_same_rows(tmp_path):
    pytest.importorskip("array_record", reason="array_record is not installed")
    clips = [tone(0.1, hertz=300 + 50 * row) for row in range(7)]
    with Packer(tmp_path, RATE, shard_bytes=1) as packer:
        for row, clip in enumerate(clips):
            packer.add(f"é{row}", "ein Wort" * row, None, len(clip), encode(clip, RATE))
    assert len(list(tmp_path.glob("*.array_record"))) == 7
    store = Store.open(tmp_path)
    assert store.ids[3] == "é3"
    assert store.texts[2] == "ein Wortein Wort"
    for row in (6, 0, 3):
        np.testing.assert_allclose(store.samples(row), clips[row], atol=2e-5)


def test_rows_of_a_manifest_are_measured_by_their_headers_where_they_say_nothing(tmp_path):
    path = write_manifest(tmp_path, [0.5])
    soundfile.write(tmp_path / "0.wav", tone(0.5, 8_000), 8_000)
    store = Store.open(path)
    assert store.lengths.tolist() == [8_000]
    assert len(store.samples(0)) == 8_000
    assert len(Store.open(path, rate=24_000).samples(0)) == 12_000


def test_a_row_can_be_a_part_of_its_recording(tmp_path):
    path = write_manifest(tmp_path, [1.0])
    lines = [
        {"audio": "0.wav", "text": "x", "offset": offset, "duration": 0.25}
        for offset in (0.5, 0.75, 0.9)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    store, whole = Store.open(path), soundfile.read(tmp_path / "0.wav", dtype="float32")[0]
    assert store.lengths.tolist() == [4_000] * 3
    np.testing.assert_array_equal(store.samples(0), whole[8_000:12_000])
    np.testing.assert_array_equal(store.samples(1), whole[12_000:])
    with pytest.raises(AudioError, match=r"ends at 1\.15 s, its recording at 1\.00 s"):
        store.samples(2)


def test_a_recording_of_another_length_than_its_row_says_is_refused(tmp_path):
    store = Store.open(write_manifest(tmp_path, [1.0, 1.0], duration=[1.02, 3.0]))
    assert len(store.samples(0)) == 16_320  # what was planned with, to the sample
    with pytest.raises(DataError, match=r"1\.wav: the row says 3\.00 s, the recording has 1\.00"):
        store.samples(1)


def test_a_manifest_with_a_faulty_row_is_refused(tmp_path):
    path = write_manifest(tmp_path, [0.1])
    path.write_text(path.read_text() + '{"audio": "x.wav"}\n')
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 2: no text; 1 of its rows"):
        Store.open(path)


def cut_a_shard(folder):
    shard = next(folder.glob("*.array_record"))
    shard.write_bytes(shard.read_bytes()[:-1])


def flip_a_byte_of_the_rows(folder):
    content = bytearray((folder / "rows.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "rows.npz").write_bytes(content)


def change_the_version(folder):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | {"version": 99}))


def remove_the_rows(folder):
    (folder / "rows.npz").unlink()


def remove_the_index(folder):
    (folder / "index.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_a_shard, "missing or cut short"),
        (flip_a_byte_of_the_rows, r"rows\.npz: is damaged"),
        (change_the_version, "version 99"),
        (remove_the_rows, r"rows\.npz: cannot be read"),
        (remove_the_index, r"holds no index\.json"),
    ],
)
def test_a_damaged_folder_is_refused_when_it_is_opened(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        Store.open(folder)


def test_sound_that_is_damaged_is_refused_when_it_is_read(folder):
    shard = next(folder.glob("*.array_record"))
    content = bytearray(shard.read_bytes())
    content[100:-100] = bytes(len(content) - 200)
    shard.write_bytes(content)
    with pytest.raises(DataError, match="record 0 cannot be read"):
        Store.open(folder).samples(0)


def test_a_folder_of_another_rate_is_refused(folder):
    with pytest.raises(DataError, match="prepared at 16000 Hz, 8000 Hz are wanted"):
        Store.open(folder, rate=8_000)


def test_a_library_that_is_missing_is_named_with_the_extra_that_has_it():
    with pytest.raises(ConfigError, match=r"pip install 'speech_ed_flax\[train\]'"):
        extras.require("no_such_library.part", "train")
