"""``pytorch_model.bin`` is read as torch reads it, and never does anything but describe tensors."""

import argparse
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from speech_ed_flax.conversion import archive, opcodes
from speech_ed_flax.conversion.pickle import read_pickle
from speech_ed_flax.errors import CheckpointError

torch = pytest.importorskip("torch")

REBUILD = torch._utils._rebuild_tensor_v2


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Stored:
    """Pickles as the persistent id of a storage."""

    def __init__(self, *identity):
        self.identity = identity


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return value.identity if isinstance(value, Stored) else None


def tensor(shape=(4,), strides=(1,), offset=0, elements=4, key="0", kind=torch.FloatStorage):
    storage = Stored("storage", kind, key, "cpu", elements)
    return Call(REBUILD, storage, offset, shape, strides, False, OrderedDict())


def pickled(tree, protocol=2) -> bytes:
    stream = BytesIO()
    Pickler(stream, protocol).dump(tree)
    return stream.getvalue()


def write_zip(path: Path, tree, entries=(), compression=zipfile.ZIP_STORED, storage=bytes(16)):
    """Writes what torch.save writes, plus ``entries``; ``tree`` may be raw opcodes."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("model/data.pkl", tree if isinstance(tree, bytes) else pickled(tree))
        if storage is not None:
            file.writestr("model/data/0", storage)
        for name, data in entries:
            file.writestr(name, data)


def write_stream(path: Path, tree, storages: bytes, keys=("0",), little_endian=True):
    facts = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}
    start = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, facts)]
    path.write_bytes(b"".join([*start, pickled(tree), pickle.dumps(list(keys), 2), storages]))


def in_stream(elements=4):
    storage = Stored("storage", torch.FloatStorage, "0", "cpu", elements, None)
    return {"w": Call(REBUILD, storage, 0, (4,), (1,), False, OrderedDict())}


def bits(array) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def torch_bits(value) -> bytes:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def with_peak(read):
    """Returns what ``read`` returns, and the most bytes that Python and numpy had allocated."""
    tracemalloc.start()
    try:
        return read(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def example() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shared = torch.randn(6, 8)
    return OrderedDict(
        {
            "f64": torch.randn(3, 5, dtype=torch.float64),
            "f32": torch.randn(3, 5),
            "f16": torch.randn(7).half(),
            "bf16": torch.randn(2, 3, 4).bfloat16(),
            "i64": torch.arange(-3, 9),
            "i32": torch.arange(5, dtype=torch.int32),
            "i16": torch.arange(5, dtype=torch.int16),
            "i8": torch.arange(5, dtype=torch.int8),
            "u8": torch.arange(5, dtype=torch.uint8),
            "bool": torch.tensor([True, False, True]),
            "scalar": torch.tensor(3.5),
            "empty": torch.empty(0, 4),
            "whole": shared,
            "transposed": shared.T,
            "rows": shared[2:4],
            "every_other": shared[:, 1::2],
            "permuted": torch.randn(2, 3, 4).permute(2, 0, 1),
            "parameter": torch.nn.Parameter(torch.randn(3)),
        }
    )


WRITINGS = {
    "zip": {},
    "stream": {"_use_new_zipfile_serialization": False},
    "zip, protocol 4": {"pickle_protocol": 4},
    "stream, protocol 4": {"_use_new_zipfile_serialization": False, "pickle_protocol": 4},
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_every_tensor_has_the_bits_shape_and_dtype_that_torch_saved(tmp_path, writing):
    saved = example()
    path = tmp_path / "pytorch_model.bin"
    torch.save(saved, path, **WRITINGS[writing])
    state = read_pickle(path)
    assert list(state) == list(saved)
    for name, value in saved.items():
        assert state[name].dtype.name == str(value.dtype).removeprefix("torch.")
        assert state[name].shape == tuple(value.shape)
        assert bits(state[name]) == torch_bits(value), name


@pytest.mark.parametrize("writing", ["zip", "stream"])
def test_the_state_dict_of_a_module_is_read_without_its_metadata(tmp_path, writing):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    path = tmp_path / "pytorch_model.bin"
    torch.save(model.state_dict(), path, **WRITINGS[writing])
    state = read_pickle(path)
    assert state.keys() == model.state_dict().keys()
    assert bits(state["0.weight"]) == torch_bits(model[0].weight)


@pytest.mark.parametrize("writing", ["zip", "stream"])
def test_tensors_are_read_only_views_and_share_what_they_shared(tmp_path, writing):
    path = tmp_path / "pytorch_model.bin"
    torch.save(example(), path, **WRITINGS[writing])
    state = read_pickle(path)
    assert not any(array.flags.writeable or array.flags.owndata for array in state.values())
    assert np.shares_memory(state["whole"], state["transposed"])
    assert np.shares_memory(state["whole"], state["rows"])
    assert not np.shares_memory(state["whole"], state["f32"])


def test_reading_a_large_file_allocates_almost_nothing(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.zeros(8 << 20)}, path)
    state, peak = with_peak(lambda: read_pickle(path))
    assert state["w"].nbytes == 32 << 20
    assert peak < 1 << 20


CASES = {}


def malformed(reason: str, name: str | None = None):
    """Registers a writer of a bad file, with words that its error must contain."""

    def register(write):
        label = (name or write.__name__).replace("_", " ")
        assert label not in CASES
        CASES[label] = (write, reason)
        return write

    return register


# What would run something.


@malformed("'posix.system'")
def calls_os_system(path, canary):
    write_zip(path, {"w": Call(os.system, f"touch {canary}")})


@malformed("'posix.system'")
def calls_os_system_in_a_stream(path, canary):
    write_stream(path, {"w": Call(os.system, f"touch {canary}")}, b"")


@malformed("'posix.system'")
def is_a_bare_pickle_that_calls_os_system(path, canary):
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {canary}")))


@malformed("eval")
def calls_eval(path, canary):
    write_zip(path, {"w": Call(eval, f"open({str(canary)!r}, 'w')")})


@malformed("getattr")
def calls_getattr(path, canary):
    write_zip(path, {"w": Call(getattr, torch._utils._rebuild_tensor_v2, "__globals__")})


@malformed("INST 'posix system'")
def calls_through_the_inst_opcode(path, canary):
    write_zip(path, b"(S'touch " + str(canary).encode() + b"'\niposix\nsystem\n.")


@malformed("OBJ")
def calls_through_the_obj_opcode(path, canary):
    write_zip(path, b"\x80\x02(ccollections\nOrderedDict\no.")


@malformed("NEWOBJ")
def calls_through_the_newobj_opcode(path, canary):
    write_zip(path, b"\x80\x02ccollections\nOrderedDict\n)\x81.")


@malformed("EXT1")
def calls_through_the_extension_registry(path, canary):
    write_zip(path, b"\x80\x02\x82\x01)R.")


@malformed("'torch._utils._rebuild_tensor_v2.__globals__'")
def names_a_global_inside_an_allowed_one(path, canary):
    name = b"_rebuild_tensor_v2.__globals__"
    write_zip(path, b"\x80\x04\x8c\x0ctorch._utils\x8c" + bytes([len(name)]) + name + b"\x93.")


@malformed("'torch.nn.modules.linear.Linear'")
def is_a_whole_module(path, canary):
    torch.save(torch.nn.Linear(2, 2), path)


@malformed("'torch._tensor._rebuild_from_type_v2'")
def rebuilds_from_a_type(path, canary):
    write_zip(path, {"w": Call(torch._tensor._rebuild_from_type_v2, os.system, int, (), {})})


@malformed("'argparse.Namespace'")
def has_a_namespace(path, canary):
    torch.save({"w": torch.zeros(2), "args": argparse.Namespace(lr=1)}, path)


@malformed("TypeError")
def calls_a_string(path, canary):
    write_zip(path, b"\x80\x02X\x09\x00\x00\x00os.system)R.")


@malformed("KeyError")
def calls_a_storage_type(path, canary):
    write_zip(path, b"\x80\x02ctorch\nFloatStorage\n)R.")


@malformed("TypeError")
def hides_a_huge_tree_in_the_name_of_a_global(path, canary):
    doubled = b"]q\x00" + b"".join(b"]q%c(h%ch%ce" % (i, i - 1, i - 1) for i in range(1, 60))
    write_zip(path, b"\x80\x04" + doubled + b"\x8c\x01x\x93.")


@malformed("other than a plain storage")
def refers_to_a_module_source(path, canary):
    write_zip(path, {"w": Stored("module", "Evil", "source.py", "import os", 1)})


# What is no plain state dict.


@malformed("'state_dict' is a dict with the keys 'w'")
def is_a_lightning_checkpoint(path, canary):
    torch.save({"state_dict": {"w": torch.zeros(2)}, "epoch": 3}, path)


@malformed("it holds a list")
def is_a_list(path, canary):
    torch.save([torch.zeros(2)], path)


@malformed("it holds a tensor")
def is_a_lone_tensor(path, canary):
    torch.save(torch.zeros(2), path)


@malformed("'step' is a int")
def has_a_number(path, canary):
    torch.save({"w": torch.zeros(2), "step": 7}, path)


@malformed("'torch._utils._rebuild_sparse_tensor'")
def has_a_sparse_tensor(path, canary):
    torch.save({"w": torch.eye(2).to_sparse()}, path)


@malformed("'torch.ComplexFloatStorage'")
def has_complex_numbers(path, canary):
    torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, path)


@malformed("not one that torch.save wrote")
def is_a_bare_pickle(path, canary):
    path.write_bytes(pickle.dumps({"a": 1}))


# Tensors that do not fit their storage.

for label, reason, declared in (
    ("storage too short", "has 16 bytes", {"elements": 5, "shape": (5,)}),
    ("storage of a thousand million elements", "has 16 bytes", {"elements": 10**9}),
    ("shape of a thousand million elements", "outside its storage", {"shape": (10**9,)}),
    (
        "expanded to a thousand million elements",
        "outside its storage",
        {"shape": (10**9,), "strides": (0,)},
    ),
    ("offset outside", "outside its storage", {"offset": 1}),
    ("offset far outside", "outside its storage", {"offset": 1 << 62}),
    ("stride outside", "outside its storage", {"shape": (2, 2), "strides": (3, 1)}),
    ("negative offset", "negative", {"offset": -1}),
    ("negative stride", "negative", {"strides": (-1,), "offset": 3}),
    ("negative size", "negative", {"shape": (-4,)}),
    ("negative sizes whose product fits", "negative", {"shape": (-2, -2), "strides": (2, 1)}),
    ("impossible size", "impossible", {"shape": (1 << 70,)}),
    ("sizes whose product overflows", "outside its storage", {"shape": (1 << 40, 1 << 40)[:1]}),
    ("boolean size", "impossible", {"shape": (True,)}),
    ("text for a shape", "not a tuple", {"shape": "4"}),
    ("more axes than strides", "2 axes but 1 strides", {"shape": (2, 2)}),
    ("too many axes", "at most 64", {"shape": (1,) * 65, "strides": (1,) * 65}),
    ("missing data entry", "'9' is missing", {"key": "9"}),
):

    def write_tensor(path, canary, declared=declared):
        write_zip(path, {"w": tensor(**declared)})

    malformed(f"tensor 'w': .*{reason}", label)(write_tensor)


@malformed("declares no valid size")
def has_a_negative_storage(path, canary):
    write_zip(path, {"w": tensor(elements=-4)})


@malformed("declared twice")
def declares_a_storage_twice(path, canary):
    write_zip(path, {"w": tensor(), "v": tensor(elements=2)})


@malformed("lazy bits")
def has_a_lazily_negated_tensor(path, canary):
    imaginary = torch.zeros(2, dtype=torch.complex64).conj().imag
    torch.save({"w": imaginary.detach()}, path)


# Zip files that torch does not write.


@malformed("compressed")
def is_a_zip_bomb(path, canary):
    write_zip(path, {"w": tensor()}, compression=zipfile.ZIP_DEFLATED, storage=bytes(1 << 22))


@malformed("appears twice")
def has_an_entry_twice(path, canary):
    write_zip(path, {"w": tensor()}, [("model/data/1", b"a"), ("model/data/2", b"b")])
    path.write_bytes(path.read_bytes().replace(b"model/data/2", b"model/data/1"))


@malformed("out of the archive")
def has_an_entry_above_the_archive(path, canary):
    write_zip(path, {"w": tensor()}, [("model/../../evil", b"a")])


@malformed("out of the archive")
def has_an_absolute_entry(path, canary):
    write_zip(path, {"w": tensor()}, [("/evil", b"a")])


@malformed("out of the archive")
def has_a_name_with_a_null_byte(path, canary):
    write_zip(path, {"w": tensor()}, [("model/data/1~evil", b"a")])
    path.write_bytes(path.read_bytes().replace(b"1~evil", b"1\0evil"))


@malformed("encrypted")
def is_encrypted(path, canary):
    write_zip(path, {"w": tensor()})
    contents = bytearray(path.read_bytes())
    contents[contents.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(contents)


@malformed("byteorder")
def is_big_endian(path, canary):
    write_zip(path, {"w": tensor()}, [("model/byteorder", b"big")])


@malformed("0 entries named data.pkl")
def has_no_pickle(path, canary):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("model/readme", "hello")


@malformed("2 entries named data.pkl")
def has_two_pickles(path, canary):
    write_zip(path, {"w": tensor()}, [("other/data.pkl", b".")])


@malformed("damaged or cut short")
def is_a_truncated_zip(path, canary):
    torch.save({"w": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-50])


@malformed("outside the file")
def has_an_entry_larger_than_the_file(path, canary):
    write_zip(path, {"w": tensor()})
    contents = bytearray(path.read_bytes())
    entry = contents.index(b"PK\x01\x02")
    contents[entry + 20 : entry + 28] = struct.pack("<2I", 1 << 30, 1 << 30)
    path.write_bytes(contents)


@malformed("outside the file")
def has_an_entry_that_begins_nowhere(path, canary):
    write_zip(path, {"w": tensor()})
    contents = bytearray(path.read_bytes())
    entry = contents.index(b"PK\x01\x02")
    contents[entry + 42 : entry + 46] = struct.pack("<I", 7)
    path.write_bytes(contents)


# Streams that torch did not write.


@malformed("'0' is cut short")
def is_a_truncated_stream(path, canary):
    write_stream(path, in_stream(), struct.pack("<q", 4) + bytes(15))


@malformed("damaged")
def is_a_stream_cut_inside_its_pickle(path, canary):
    torch.save({"w": torch.zeros(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:200])


@malformed("'0' is cut short")
def is_a_stream_without_storages(path, canary):
    write_stream(path, in_stream(), b"")


@malformed("'0' is cut short")
def is_a_stream_of_a_thousand_million_elements(path, canary):
    write_stream(path, in_stream(elements=10**9), struct.pack("<q", 10**9) + bytes(16))


@malformed("of another size")
def is_a_stream_that_contradicts_its_pickle(path, canary):
    write_stream(path, in_stream(), struct.pack("<q", 3) + bytes(16))


@malformed("list of storages")
def is_a_stream_that_forgets_a_storage(path, canary):
    write_stream(path, in_stream(), b"", keys=())


@malformed("list of storages")
def is_a_stream_that_repeats_a_storage(path, canary):
    write_stream(path, in_stream(), bytes(64), keys=("0", "0"))


@malformed("byteorder")
def is_a_big_endian_stream(path, canary):
    write_stream(path, in_stream(), bytes(24), little_endian=False)


# Pickles meant to exhaust something.


@malformed("'w' is a list")
def is_nested_deeply(path, canary):
    deep = b"]" * 20_000 + b"a" * 19_999
    write_zip(path, b"\x80\x02}X\x01\x00\x00\x00w" + deep + b"s.")


@malformed("tuple as the key")
def has_a_deeply_nested_key(path, canary):
    write_zip(path, b"\x80\x02})" + b"\x85" * 20_000 + b"Ns.")


@malformed("it holds a")
def has_a_huge_memo_index(path, canary):
    write_zip(path, b"\x80\x02]r\xff\xff\xff\xff.")


@malformed("damaged")
def declares_a_huge_string(path, canary):
    write_zip(path, b"\x80\x04}\x8d" + struct.pack("<Q", 1 << 60) + b"w.")


@malformed("damaged")
def declares_a_huge_integer(path, canary):
    write_zip(path, b"\x80\x02}\x8b" + struct.pack("<i", (1 << 31) - 1) + b"w.")


@malformed("damaged")
def pops_an_empty_stack(path, canary):
    write_zip(path, b"\x80\x02s.")


@malformed("damaged")
def closes_a_mark_never_opened(path, canary):
    write_zip(path, b"\x80\x02t.")


@malformed("damaged")
def never_stops(path, canary):
    write_zip(path, b"\x80\x02}")


@malformed("damaged")
def has_an_unknown_opcode(path, canary):
    write_zip(path, b"\x80\x02\xff.")


@malformed("damaged")
def recalls_what_was_not_remembered(path, canary):
    write_zip(path, b"\x80\x02h\x05.")


# What is no PyTorch file at all.


@malformed("it is empty")
def is_empty(path, canary):
    path.touch()


@malformed("git lfs pull")
def is_a_git_lfs_pointer(path, canary):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 4\n")


@malformed("HTML page")
def is_an_html_page(path, canary):
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")


@malformed("gzip")
def is_compressed_by_gzip(path, canary):
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(20))


@malformed("looks like a safetensors file")
def is_a_safetensors_file(path, canary):
    path.write_bytes(struct.pack("<Q", 2) + b"{}")


@malformed("no checkpoint at all")
def is_text(path, canary):
    path.write_text("hello")


@malformed("not a regular file")
def is_a_folder(path, canary):
    path.mkdir()


@malformed("not a regular file")
def is_a_pipe_that_nobody_writes_to(path, canary):
    os.mkfifo(path)


@malformed("no such file")
def is_missing(path, canary):
    pass


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_by_name_and_nothing_runs(tmp_path, case):
    write, reason = CASES[case]
    path, canary = tmp_path / "pytorch_model.bin", tmp_path / "canary"
    write(path, canary)
    with pytest.raises(CheckpointError, match=rf"(?s)pytorch_model\.bin: .*{reason}"):
        read_pickle(path)
    assert not canary.exists()


@pytest.mark.parametrize("case", [case for case in CASES if "deep" not in case])
def test_a_bad_file_cannot_make_the_reader_allocate(tmp_path, case):
    path = tmp_path / "pytorch_model.bin"
    CASES[case][0](path, tmp_path / "canary")

    def refuse():
        with pytest.raises(CheckpointError):
            read_pickle(path)

    assert with_peak(refuse)[1] < 1 << 20


def test_the_size_of_the_pickle_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "pytorch_model.bin"
    write_zip(path, b"\x80\x02" + b"N0" * (opcodes.LIMIT // 2) + b".")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: its pickle is larger than"):
        read_pickle(path)
    monkeypatch.setattr(opcodes, "_MOST_OPCODES", 1000)
    write_zip(path, b"\x80\x02" + b"]" * 2000 + b".")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: .* more than 1000 opcodes"):
        read_pickle(path)


def test_the_size_of_the_zip_directory_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "pytorch_model.bin"
    torch.save(example(), path)
    monkeypatch.setattr(archive, "_MOST_DIRECTORY", 1000)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: its zip directory is larger"):
        read_pickle(path)


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("writing", ["zip", "stream"])
def test_a_damaged_byte_gives_arrays_or_an_error_that_names_the_file(tmp_path, writing):
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": torch.arange(6.0).view(2, 3).T, "v": torch.ones(3)}, path, **WRITINGS[writing])
    contents, dice, refusals = path.read_bytes(), random.Random(0), []
    for _ in range(200):
        damaged = bytearray(contents)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        path.write_bytes(damaged)
        try:
            state = read_pickle(path)
        except CheckpointError as error:
            refusals.append(str(error))
        else:
            for array in state.values():
                bits(array)  # every element lies inside the mapped file
    assert len(refusals) > 20
    assert all("pytorch_model.bin: " in refusal for refusal in refusals)
