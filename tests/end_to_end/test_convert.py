"""Conversion and inspection through the command line: nothing lost, nothing half written."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import GPT2Config, HubertConfig

from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.cli import main
from speech_ed_flax.conversion import save
from speech_ed_flax.conversion.config import join
from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel

WHISPER = Path(__file__).parents[3] / "shared/checkpoints/whisper-tiny.en"


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A tiny checkpoint with a projection, weight norm, tied and split tensors."""
    encoder = HubertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(5, 4),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    decoder = GPT2Config(vocab_size=20, n_embd=24, n_layer=2, n_head=2, n_positions=32, **ids)
    config = join(encoder, decoder, pad_token_id=0, decoder_start_token_id=1, **ids)
    for part in (config, config.encoder, config.decoder):
        part.dtype = "float32"
    model = FlaxSpeechEncoderDecoderModel(config, processor=Processor(WaveformFeatures()))
    model.generation_config.update(num_beams=3)
    folder = tmp_path_factory.mktemp("source")
    model.save_pretrained(folder)
    return folder


def convert(source, destination, *arguments):
    return main(["convert", str(source), str(destination), *map(str, arguments)])


def report(path, capsys, *arguments):
    capsys.readouterr()
    main(["inspect", str(path), "--json", *arguments])
    return json.loads(capsys.readouterr().out)


def names(folder):
    return {path.name for path in folder.iterdir()}


COMPANIONS = {
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "README.md",
}


# --- convert --------------------------------------------------------------------------------------


def test_to_flax_and_back_changes_no_bit_and_no_setting(source, tmp_path, capsys):
    flax, back = tmp_path / "flax", tmp_path / "deeper/back"
    assert convert(source, flax, "--to", "flax") == 0
    assert names(flax) == {"flax_model.msgpack"} | COMPANIONS
    assert convert(flax, back, "--to", "pytorch") == 0
    assert names(back) == {"model.safetensors"} | COMPANIONS
    before, after = load_file(source / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert tensor.dtype == after[name].dtype
        assert tensor.tobytes() == after[name].tobytes()
    for name in ("config.json", "generation_config.json", "preprocessor_config.json"):
        assert json.loads((source / name).read_text()) == json.loads((back / name).read_text())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_summary_on_stdout_counts_what_was_compared(source, tmp_path, capsys):
    assert convert(source, tmp_path / "out", "--to", "flax") == 0
    out, err = capsys.readouterr()
    leaves = jax.tree.leaves(FlaxSpeechEncoderDecoderModel.from_pretrained(source).params)
    size = sum(leaf.nbytes for leaf in leaves)
    assert out.count("\n") == 1
    assert f"{len(leaves)} tensors, {size:,} bytes, read back bit for bit the same" in out
    assert err == ""
    assert convert(source, tmp_path / "unverified", "--to", "flax", "--no-verify") == 0
    assert "not verified" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("layout", ["flax", "pytorch"])
def test_a_change_of_dtype_reaches_every_tensor_and_the_config(
    source, tmp_path, capsys, dtype, layout
):
    out = tmp_path / "out"
    assert convert(source, out, "--to", layout, "--dtype", dtype) == 0
    found = report(out, capsys)
    assert found["dtypes"] == {dtype: found["tensors"]}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    before = FlaxSpeechEncoderDecoderModel.from_pretrained(source).params
    after = FlaxSpeechEncoderDecoderModel.from_pretrained(out, dtype=None).params
    rounded = jax.tree.map(lambda leaf: leaf.astype(dtype), before)
    assert jax.tree.all(jax.tree.map(np.array_equal, rounded, after))


def test_auto_keeps_the_dtype_that_is_stored(source, tmp_path, capsys):
    half, flax = tmp_path / "half", tmp_path / "flax"
    assert convert(source, half, "--to", "pytorch", "--dtype", "float16") == 0
    assert convert(half, flax, "--to", "flax") == 0
    assert set(report(flax, capsys)["dtypes"]) == {"float16"}


def test_shards_are_no_larger_than_asked_and_load_again(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert(source, out, "--to", "pytorch", "--max-shard-size", "8KB") == 0
    shards = list(out.glob("model-*-of-*.safetensors"))
    assert len(shards) > 1
    for shard in shards:
        sizes = [tensor.nbytes for tensor in load_file(shard).values()]
        assert sum(sizes) <= 8_000 or len(sizes) == 1
    assert report(out, capsys)["sha256"] == report(source, capsys)["sha256"]


def test_a_folder_that_is_not_empty_is_refused(source, tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert convert(source, tmp_path, "--to", "flax") == 2
    assert "--force" in capsys.readouterr().err
    assert names(tmp_path) == {"mine.txt"}


def test_force_replaces_weights_of_every_layout_and_nothing_of_the_users(source, tmp_path, capsys):
    out = tmp_path / "out"
    assert convert(source, out, "--to", "pytorch", "--max-shard-size", "8KB") == 0
    (out / "mine.txt").write_text("mine")
    (out / "README.md").write_text("my card")
    assert convert(source, out, "--to", "flax", "--dtype", "bfloat16", "--force") == 0
    assert names(out) == {"flax_model.msgpack", "mine.txt"} | COMPANIONS
    assert (out / "README.md").read_text() == "my card"
    assert set(report(out, capsys)["dtypes"]) == {"bfloat16"}


def test_the_source_is_never_the_destination(source, capsys):
    before = (source / "model.safetensors").read_bytes()
    assert convert(source, source, "--to", "flax", "--force") == 2
    assert "it is the source too" in capsys.readouterr().err
    assert (source / "model.safetensors").read_bytes() == before


def write_otherwise(monkeypatch, change):
    """Lets weights be written after a change to one of them."""
    write = save.save_weights

    def save_weights(folder, module, params, *rest):
        first, *others = jax.tree.leaves(params)
        changed = jax.tree.unflatten(jax.tree.structure(params), [change(first), *others])
        write(folder, module, changed, *rest)

    monkeypatch.setattr(save, "save_weights", save_weights)


@pytest.mark.parametrize(
    "change", [lambda leaf: leaf.at[..., 0].add(1e-6), lambda leaf: leaf.astype("bfloat16")]
)
def test_what_does_not_read_back_the_same_ends_with_five_and_leaves_nothing(
    source, tmp_path, capsys, monkeypatch, change
):
    write_otherwise(monkeypatch, change)
    assert convert(source, tmp_path / "out", "--to", "flax") == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unusable_source_ends_with_four_and_leaves_nothing(tmp_path, capsys):
    broken, out = tmp_path / "broken", tmp_path / "out"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    assert convert(broken, out, "--to", "flax") == 4
    assert convert(tmp_path / "nowhere", out, "--to", "flax") == 4
    assert names(tmp_path) == {"broken"}
    assert capsys.readouterr().err.count("error: ") == 2


@pytest.mark.parametrize("size", ["", "many", "0", "5XB", "-1GB"])
def test_a_shard_size_that_is_none_is_a_mistake_in_the_arguments(source, tmp_path, capsys, size):
    arguments = ["--to", "pytorch", f"--max-shard-size={size}"]
    assert convert(source, tmp_path / "out", *arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.skipif(not WHISPER.exists(), reason="needs ../shared: a real checkpoint")
def test_a_real_whisper_goes_to_flax_and_back_bit_for_bit(tmp_path, capsys):
    flax, back = tmp_path / "flax", tmp_path / "back"
    assert convert(WHISPER, flax, "--to", "flax") == 0
    assert convert(flax, back, "--to", "pytorch") == 0
    digests = {report(folder, capsys)["sha256"] for folder in (WHISPER, flax, back)}
    assert len(digests) == 1
    assert json.loads((back / "config.json").read_text())["dtype"] == "float16"


# --- inspect --------------------------------------------------------------------------------------


def test_inspect_tells_types_sizes_numbers_and_settings(source, capsys):
    found = report(source, capsys)
    assert found["model_type"] == "speech-encoder-decoder"
    assert found["encoder"] == {"model_type": "hubert", "layers": 2, "width": 16, "heads": 2}
    sizes = {"layers": 2, "vocab": 20, "positions": 32, "width": 24, "heads": 2}
    assert found["decoder"] == {"model_type": "gpt2"} | sizes
    leaves = jax.tree.leaves(FlaxSpeechEncoderDecoderModel.from_pretrained(source).params)
    assert found["parameters"] == sum(leaf.size for leaf in leaves)
    assert found["bytes"] == 4 * found["parameters"]
    assert found["fits"] is True
    assert found["generation"]["num_beams"] == 3
    assert found["generation"]["decoder_start_token_id"] == 1


def test_inspect_without_json_prints_a_line_for_each_fact(source, capsys):
    assert main(["inspect", str(source), "--tensors"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "model_type: speech-encoder-decoder" in lines
    assert "fits: yes" in lines
    assert any(line.split() == ["enc_to_dec_proj.bias", "float32[24]"] for line in lines)


def test_the_digest_is_that_of_the_numbers_whatever_the_layout(source, tmp_path, capsys):
    assert convert(source, tmp_path / "flax", "--to", "flax") == 0
    files = (source / "model.safetensors", tmp_path / "flax/flax_model.msgpack")
    (digest,) = {report(path, capsys)["sha256"] for path in (source, *files)}
    params = FlaxSpeechEncoderDecoderModel.from_pretrained(source)
    changed = jax.tree.map(lambda leaf: leaf, params.params)
    changed["projection"]["bias"] = changed["projection"]["bias"].at[0].add(1e-7)
    params.save_pretrained(tmp_path / "changed", changed)
    assert report(tmp_path / "changed", capsys)["sha256"] != digest


def test_tensors_are_listed_with_shape_and_dtype(source, capsys):
    listing = report(source / "model.safetensors", capsys, "--tensors")["listing"]
    stored = load_file(source / "model.safetensors")
    assert {one["name"]: tuple(one["shape"]) for one in listing} == {
        name: tensor.shape for name, tensor in stored.items()
    }
    assert {one["dtype"] for one in listing} == {"float32"}


def test_a_checkpoint_that_does_not_fit_is_described_and_ends_with_four(source, tmp_path, capsys):
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((source / "config.json").read_text())
    config["decoder"]["n_layer"] = 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["inspect", str(tmp_path), "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert found["fits"] is False
    assert "- decoder/transformer/layers_2" in found["problem"]
    assert found["tensors"] > 0


def test_inspect_says_of_a_language_model_that_it_cannot_listen(tmp_path, capsys):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    save_file({"model.norm.weight": np.ones(4, np.float32)}, tmp_path / "model.safetensors")
    found = report(tmp_path, capsys)
    assert "it has no cross-attention" in found["decoder"]["problem"]
    assert "note" not in found


@pytest.mark.parametrize("name", ["none.safetensors", "./nowhere", "text.txt"])
def test_what_is_no_checkpoint_ends_with_four_and_one_line(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("text")
    assert main(["inspect", name]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
