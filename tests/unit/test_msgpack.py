"""The Flax checkpoints of transformers 4.x become PyTorch state dicts, and back."""

import os

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from speech_ed_flax.conversion.msgpack import read_msgpack, write_msgpack
from speech_ed_flax.errors import CheckpointError

EMBEDDING = "decoder.model.decoder.embed_tokens.weight"


def state() -> dict[str, np.ndarray]:
    numbers = np.arange(24, dtype=np.float32)
    convolution = "encoder.encoder.pos_conv_embed.conv.parametrizations.weight"
    return {
        EMBEDDING: numbers.reshape(6, 4),
        "encoder.masked_spec_embed": numbers[:4],
        "encoder.feature_extractor.conv_layers.0.conv.weight": numbers.reshape(4, 2, 3),
        "encoder.feature_extractor.conv_layers.0.layer_norm.weight": numbers[:4] + 1,
        "encoder.feature_extractor.conv_layers.0.layer_norm.bias": numbers[:4] + 2,
        f"{convolution}.original0": numbers[:3].reshape(1, 1, 3),
        f"{convolution}.original1": numbers.reshape(4, 2, 3) + 3,
        "enc_to_dec_proj.weight": numbers.reshape(3, 8).astype(ml_dtypes.bfloat16),
        "enc_to_dec_proj.bias": numbers[:3].astype(np.float16),
    }


def legacy(name: str) -> str:
    name = name.replace("parametrizations.weight.original0", "weight_g")
    return name.replace("parametrizations.weight.original1", "weight_v")


def test_a_state_becomes_the_tree_that_transformers_4_wrote(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    write_msgpack(path, state(), {EMBEDDING})
    tree = flax.serialization.msgpack_restore(path.read_bytes())
    assert set(tree) == {"encoder", "decoder", "enc_to_dec_proj"}
    layer = tree["encoder"]["feature_extractor"]["conv_layers"]["0"]
    assert set(layer["conv"]) == {"kernel"}
    assert layer["conv"]["kernel"].shape == (3, 2, 4)
    assert set(layer["layer_norm"]) == {"scale", "bias"}
    assert set(tree["encoder"]["encoder"]["pos_conv_embed"]["conv"]) == {"weight_g", "weight_v"}
    assert set(tree["decoder"]["model"]["decoder"]["embed_tokens"]) == {"embedding"}
    assert tree["enc_to_dec_proj"]["kernel"].dtype == ml_dtypes.bfloat16
    assert tree["enc_to_dec_proj"]["kernel"].shape == (8, 3)
    assert "masked_spec_embed" in tree["encoder"]


def test_a_state_survives_the_journey_bit_for_bit(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    write_msgpack(path, state(), {EMBEDDING})
    again = read_msgpack(path)
    assert again.keys() == {legacy(name) for name in state()}
    for name, array in state().items():
        assert again[legacy(name)].dtype == array.dtype
        assert again[legacy(name)].tolist() == array.tolist()


def test_a_tree_of_flax_is_read_under_pytorch_names(tmp_path):
    tree = {
        "decoder": {
            "h": {"0": {"attn": {"kernel": jnp.arange(6.0).reshape(2, 3)}}},
            "ln_f": {"scale": jnp.ones(2), "bias": jnp.zeros(2)},
            "wte": {"embedding": jnp.arange(8, dtype=jnp.bfloat16).reshape(4, 2)},
        }
    }
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.to_bytes(tree))
    again = read_msgpack(path)
    assert again["decoder.h.0.attn.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert again["decoder.ln_f.weight"].tolist() == [1, 1]
    assert again["decoder.wte.weight"].dtype == ml_dtypes.bfloat16
    assert again["decoder.wte.weight"].shape == (4, 2)
    assert set(again) == {
        "decoder.h.0.attn.weight",
        "decoder.ln_f.weight",
        "decoder.ln_f.bias",
        "decoder.wte.weight",
    }


def test_jax_arrays_are_written(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    write_msgpack(path, {"a.weight": jnp.arange(6.0).reshape(2, 3).T}, ())
    assert read_msgpack(path)["a.weight"].tolist() == [[0, 3], [1, 4], [2, 5]]


def array(values: bytes = bytes(8), shape=(2,), dtype: str = "float32") -> msgpack.ExtType:
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, values), use_bin_type=True))


CASES = {
    "empty": (b"", "it is empty"),
    "git lfs pointer": (b"version https://git-lfs.github.com/spec/v1\nsize 4\n", "git lfs pull"),
    "html page": (b"<html>404</html>", "HTML page"),
    "zip": (b"PK\x03\x04" + bytes(50), "zip file"),
    "list": (msgpack.packb([1, 2]), "damaged"),
    "cut short": (msgpack.packb({"a": array()})[:-3], "damaged"),
    "trailing bytes": (msgpack.packb({"a": array()}) + b"\x01", "damaged"),
    "nested deeply": (b"\x81\xa1a" * 5000 + b"\xc0", "damaged"),
    "array of 4 thousand million maps": (b"\xdd\xff\xff\xff\xff", "damaged"),
    "number for a tensor": (msgpack.packb({"a": {"kernel": 3}}), "tensor 'a.weight': it is a int"),
    "list for a tensor": (msgpack.packb({"a": {"bias": [1]}}), "tensor 'a.bias': it is a list"),
    "unknown extension": (msgpack.packb({"a": msgpack.ExtType(9, b"x")}), "tensor 'a': .*ExtType"),
    "number for a name": (msgpack.packb({1: array()}), "int as the name"),
    "shape larger than its bytes": (msgpack.packb({"a": array(shape=(10**9,))}), "damaged"),
    "objects": (msgpack.packb({"a": array(dtype="object")}), "damaged"),
    "unknown dtype": (msgpack.packb({"a": array(dtype="os.system")}), "damaged"),
    "chunks that are none": (
        msgpack.packb({"a": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}}),
        "damaged",
    ),
    "two leaves with one name": (
        msgpack.packb({"a": {"kernel": array(), "scale": array()}}),
        "tensor 'a.weight': two leaves",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_refused_by_name_with_a_reason(tmp_path, case):
    contents, reason = CASES[case]
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(contents)
    with pytest.raises(CheckpointError, match=rf"(?s)flax_model\.msgpack: .*{reason}"):
        read_msgpack(path)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a.b", "a.b.weight"], "tensor 'a.b.kernel': another tensor is in its place"),
        (["a.b.weight", "a.b"], "tensor 'a.b': another tensor is in its place"),
        (["a.weight", "a.kernel"], "tensor 'a.kernel': another tensor is in its place"),
    ],
)
def test_names_that_are_no_tree_leave_the_earlier_file(tmp_path, names, reason):
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match=rf"flax_model\.msgpack: {reason}"):
        write_msgpack(path, {name: np.zeros((2, 2)) for name in names}, ())
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["flax_model.msgpack"]


def test_a_dtype_that_the_format_loses_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"tensor 'a': it does not read back"):
        write_msgpack(tmp_path / "flax_model.msgpack", {"a": np.ones(2, ">f4")}, ())
    assert os.listdir(tmp_path) == []
