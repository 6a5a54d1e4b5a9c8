"""Safetensors files: read as the library reads them, written right, refused with a reason."""

import json
import os
import struct
import tracemalloc

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from speech_ed_flax.conversion import safetensors
from speech_ed_flax.conversion.safetensors import read_safetensors, write_safetensors
from speech_ed_flax.conversion.shards import read_shards, write_sharded
from speech_ed_flax.conversion.weights import read_weights
from speech_ed_flax.errors import CheckpointError


def bits(array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def torch_bits(torch, value) -> bytes:
    return value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def torch_example(torch):
    torch.manual_seed(0)
    return {
        "f64": torch.randn(3, 5, dtype=torch.float64),
        "f32": torch.randn(3, 5),
        "f16": torch.randn(7).half(),
        "bf16": torch.randn(2, 3, 4).bfloat16(),
        "i64": torch.arange(-3, 9),
        "i8": torch.arange(5, dtype=torch.int8),
        "u8": torch.arange(5, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
    }


def peak_of(act) -> int:
    """Returns the most bytes that Python and numpy had allocated during ``act``."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def example() -> dict[str, np.ndarray]:
    numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "f32": numbers,
        "transposed": numbers.T,
        "strided": numbers[:, ::2, 1:],
        "backwards": numbers[::-1],
        "big_endian": numbers.astype(">f4"),
        "f64": numbers.astype(np.float64),
        "f16": numbers.astype(np.float16).T,
        "bf16": numbers.astype(ml_dtypes.bfloat16).T,
        "i64": np.arange(-4, 4),
        "bool": np.array([True, False, True]),
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 4), np.float32),
    }


def test_what_torch_saves_is_read_bit_for_bit(tmp_path):
    torch = pytest.importorskip("torch")
    save_file = pytest.importorskip("safetensors.torch").save_file
    saved, path = torch_example(torch), tmp_path / "model.safetensors"
    save_file(saved, path, metadata={"format": "pt"})
    state = read_safetensors(path)
    assert state.keys() == saved.keys()
    for name, value in saved.items():
        assert state[name].dtype.name == str(value.dtype).removeprefix("torch.")
        assert state[name].shape == tuple(value.shape)
        assert bits(state[name]) == torch_bits(torch, value), name


def test_what_is_written_is_read_bit_for_bit_by_torch(tmp_path):
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    path = tmp_path / "model.safetensors"
    write_safetensors(path, example())
    loaded = load_file(path)
    assert loaded.keys() == example().keys()
    for name, array in example().items():
        assert str(loaded[name].dtype).removeprefix("torch.") == array.dtype.name
        assert tuple(loaded[name].shape) == array.shape
        assert torch_bits(torch, loaded[name]) == bits(array.astype(array.dtype.newbyteorder("<")))


def test_jax_arrays_and_pairs_are_written(tmp_path):
    path = tmp_path / "model.safetensors"
    arrays = {"a": jnp.arange(6.0).reshape(2, 3).T, "b": jnp.ones((2,), jnp.bfloat16)}
    write_safetensors(path, iter(arrays.items()), metadata={"format": "pt", "made": "here"})
    state = read_safetensors(path)
    assert bits(state["a"]) == bits(np.asarray(arrays["a"]))
    assert state["b"].dtype == ml_dtypes.bfloat16
    header = json.loads(path.read_bytes()[8:].partition(b"}}")[0] + b"}}")
    assert header["__metadata__"] == {"format": "pt", "made": "here"}


def test_tensors_are_read_only_views_at_aligned_addresses(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, example())
    state = read_safetensors(path)
    for array in state.values():
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
    assert struct.unpack("<Q", path.read_bytes()[:8])[0] % 8 == 0


def test_reading_and_writing_a_large_tensor_copies_it_at_most_once(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {f"t{i}": np.zeros((1 << 10, 1 << 11), np.float32).T for i in range(4)}
    assert peak_of(lambda: write_safetensors(path, tensors)) < (8 << 20) + (1 << 20)
    assert peak_of(lambda: read_safetensors(path)) < 1 << 20


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([("a", np.zeros(2)), ("a", np.ones(2))], "tensor 'a': its name is given twice"),
        ([("__metadata__", np.zeros(2))], "tensor '__metadata__': its name is .* reserved"),
        ([("a", np.zeros(2, np.complex64))], "tensor 'a': its dtype complex64 cannot be written"),
        ([("a", np.array(["x"]))], "tensor 'a': its dtype <U1 cannot be written"),
    ],
)
def test_what_cannot_be_written_leaves_the_earlier_file(tmp_path, tensors, reason):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"old": np.ones(3)})
    with pytest.raises(CheckpointError, match=rf"model\.safetensors: {reason}"):
        write_safetensors(path, tensors)
    assert list(read_safetensors(path)) == ["old"]
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_bytes_that_do_not_read_back_leave_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.ones(3)})

    def misread(path):
        return {name: array + 1 for name, array in read_safetensors(path).items()}

    monkeypatch.setattr(safetensors, "read_safetensors", misread)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: tensor 'a': it does not read"):
        write_safetensors(path, {"a": np.zeros(3)})
    assert read_safetensors(path)["a"].tolist() == [1, 1, 1]
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"model\.safetensors: No such file"):
        write_safetensors(tmp_path / "nowhere" / "model.safetensors", {})


def test_a_file_can_be_replaced_by_what_is_mapped_from_it(tmp_path):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"a": np.arange(6.0).reshape(2, 3)})
    write_safetensors(path, {"a": read_safetensors(path)["a"].T})
    assert read_safetensors(path)["a"].tolist() == [[0, 3], [1, 4], [2, 5]]


# Shards.


def shardable() -> dict[str, np.ndarray]:
    return {f"t{i}": np.full((4, 5), i, np.float32).T for i in range(5)}  # 80 bytes each


def test_a_small_state_is_one_file(tmp_path):
    assert write_sharded(tmp_path / "new", shardable(), 400) == [
        tmp_path / "new" / "model.safetensors"
    ]


def test_shards_hold_as_much_as_allowed_and_read_back(tmp_path):
    paths = write_sharded(tmp_path, shardable(), 160)
    assert [path.name for path in paths] == [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "model.safetensors.index.json",
    ]
    index = json.loads(paths[-1].read_text())
    assert index["metadata"]["total_size"] == 400
    assert index["weight_map"]["t2"] == "model-00002-of-00003.safetensors"
    state = read_shards(paths[-1], read_safetensors)
    assert {name: bits(array) for name, array in state.items()} == {
        name: bits(array) for name, array in shardable().items()
    }


def test_a_tensor_larger_than_a_shard_has_one_to_itself(tmp_path):
    assert len(write_sharded(tmp_path, shardable(), 1)) == 6


def test_transformers_loads_the_shards(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    model = transformers.BertModel(config)
    config.save_pretrained(tmp_path)
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    assert len(write_sharded(tmp_path, tensors, 4000)) > 3
    again = transformers.BertModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("first", "then"), [(160, 400), (400, 160), (80, 160), (160, 80)])
def test_an_earlier_save_never_shadows_a_later_one(tmp_path, first, then):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "adapter-00001.safetensors").write_text("mine")
    write_sharded(tmp_path, {name: -array for name, array in shardable().items()}, first)
    paths = write_sharded(tmp_path, shardable(), then)
    state, _ = read_weights(tmp_path)
    assert all((state[name] == array).all() for name, array in shardable().items())
    kept = {"notes.txt", "adapter-00001.safetensors"}
    assert set(os.listdir(tmp_path)) == kept | {path.name for path in paths}


def test_a_hostile_earlier_index_deletes_no_file_of_the_user(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    index = {"weight_map": {"a": "notes.txt"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    write_sharded(tmp_path, shardable(), 400)
    assert sorted(os.listdir(tmp_path)) == ["model.safetensors", "notes.txt"]


# Malformed files.

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def encode(header, data=bytes(8)) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


CASES = {
    "empty": (b"", "it is empty"),
    "one byte": (b"\x01", "damaged"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\nsize 4\n", "git lfs pull"),
    "html page": (b"\n<!doctype html><html>404</html>", "HTML page"),
    "zip": (b"PK\x03\x04" + bytes(50), "zip file"),
    "pickle": (b"\x80\x02}q\x00." + b"\xff" * 20, "a pickle"),
    "gzip": (b"\x1f\x8b\x08\x00" + b"\xff" * 20, "gzip"),
    "header longer than the file": (struct.pack("<Q", 100) + b"{}", "safetensors file, cut short"),
    "header of 10^18 bytes": (struct.pack("<Q", 10**18) + b"{}" + bytes(8), "damaged"),
    "header of no bytes": (struct.pack("<Q", 0), "damaged"),
    "header not json": (encode(b"{nonsense"), "damaged or cut short"),
    "header not utf-8": (encode(b'{"\xff": 1}'), "damaged or cut short"),
    "header a list": (encode([1, 2]), "damaged"),
    "header nested deeply": (
        encode(b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
        "damaged or cut short",
    ),
    "header with a duplicate name": (
        encode(b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}"),
        "tensor 'a': its name is given twice",
    ),
    "tensor without a dtype": (
        encode({"a": {"shape": [2], "data_offsets": [0, 8]}}),
        "tensor 'a': .*dtype",
    ),
    "tensor a number": (encode({"a": 7}), "tensor 'a': "),
    "overlapping tensors": (encode({"a": F32, "b": F32}), "tensor `[ab]`"),
    "hole before a tensor": (
        encode({"a": {**F32, "data_offsets": [4, 12]}}, bytes(12)),
        "tensor `a`",
    ),
    "data cut short": (encode({"a": F32}, bytes(7)), "tensor 'a': "),
    "data too long": (encode({"a": F32}, bytes(9)), "not fully covered"),
    "shape larger than the data": (encode({"a": {**F32, "shape": [3]}}), "tensor 'a': "),
    "shape of 10^9 elements": (
        encode({"a": {**F32, "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}),
        "tensor 'a': ",
    ),
    "shape that overflows": (encode({"a": {**F32, "shape": [1 << 40, 1 << 40]}}), "tensor 'a': "),
    "negative shape": (encode({"a": {**F32, "shape": [-2]}}), "tensor 'a': "),
    "offsets that go backwards": (encode({"a": {**F32, "data_offsets": [8, 0]}}), "tensor 'a': "),
    "unknown dtype": (encode({"a": {**F32, "dtype": "F31"}}), "tensor 'a': .*F31"),
    "float8": (
        encode({"a.weight": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}),
        "tensor 'a.weight': its dtype F8_E4M3 is not supported",
    ),
    "complex": (
        encode({"a.weight": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}),
        "tensor 'a.weight': its dtype C64 is not supported",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_by_name_with_a_reason(tmp_path, case):
    contents, reason = CASES[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(contents)

    def refuse():
        with pytest.raises(CheckpointError, match=rf"(?s)model\.safetensors: .*{reason}"):
            read_safetensors(path)

    assert peak_of(refuse) < 1 << 20


def test_a_header_beyond_the_limit_is_refused_unread(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    write_safetensors(path, example())
    monkeypatch.setattr(safetensors, "_MOST_HEADER", 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: its header of \d+ bytes"):
        read_safetensors(path)


def test_a_folder_or_a_missing_file_is_refused_by_name(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it is not a regular file"):
        read_safetensors(tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"other\.safetensors: there is no such file"):
        read_safetensors(tmp_path / "other.safetensors")
