"""Contract: written and read a model is the same; what does not fit is refused in one error."""

import json
import resource
from copy import deepcopy

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from contracts.models import (
    DECODERS,
    ENCODERS,
    assert_same_tree,
    every_family_once,
    make_model,
    tiny_model,
)

from speech_ed_flax import CheckpointError, FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.safetensors import read_safetensors, write_safetensors
from speech_ed_flax.conversion.save import save_weights
from speech_ed_flax.decoders import DECODERS as FAMILIES

TIED = {
    decoder: tuple(f"decoder.{name}" for name in FAMILIES[hf.model_type].tied)
    for decoder, hf in DECODERS.items()
    if hf.tie_word_embeddings
}
"""The names of the output and the input embedding of every decoder that shares them."""


def load(folder, **options):
    return FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype=None, **options)


def edit(folder, change):
    """Replaces the tensors in a folder by what ``change`` makes of them."""
    path = folder / "model.safetensors"
    state = {name: np.array(tensor) for name, tensor in read_safetensors(path).items()}
    write_safetensors(path, change(state))


def save(folder, encoder="wav2vec2", decoder="bert", **tensors):
    """Saves a tiny model, with further tensors by PyTorch name; returns it."""
    model = tiny_model(encoder, decoder)
    save_weights(folder, model.module, model.params, model.config)
    if tensors:
        edit(folder, lambda state: state | tensors)
    return model


@pytest.mark.parametrize(("encoder", "decoder"), every_family_once())
def test_saved_and_loaded_every_bit_is_the_same(encoder, decoder, tmp_path):
    model = tiny_model(encoder, decoder)
    model.save_pretrained(tmp_path)
    again = load(tmp_path)
    assert_same_tree(again.params, model.params)
    assert again.module == model.module
    assert again.fresh == ()


@pytest.mark.parametrize(("encoder", "decoder"), every_family_once())
def test_saved_in_shards_every_bit_is_the_same(encoder, decoder, tmp_path):
    model = tiny_model(encoder, decoder)
    model.save_pretrained(tmp_path, shard_size=20_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_tree(load(tmp_path).params, model.params)


@pytest.mark.parametrize(("encoder", "decoder"), every_family_once())
def test_saved_as_flax_every_bit_is_the_same(encoder, decoder, tmp_path):
    model = tiny_model(encoder, decoder)
    save_weights(tmp_path, model.module, model.params, model.config, layout="flax")
    assert not list(tmp_path.glob("*.safetensors"))
    assert_same_tree(load(tmp_path).params, model.params)


@pytest.mark.parametrize("layout", ["pytorch", "flax"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize(("encoder", "decoder"), every_family_once())
def test_stored_halves_stay_halves_and_can_be_widened(encoder, decoder, dtype, layout, tmp_path):
    model = tiny_model(encoder, decoder)
    params = jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), model.params)
    save_weights(tmp_path, model.module, params, model.config, layout)
    assert_same_tree(load(tmp_path).params, params)
    widened = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path).params
    assert_same_tree(widened, jax.tree.map(lambda leaf: leaf.astype(np.float32), params))


def test_everything_that_does_not_fit_is_listed_in_one_error(tmp_path):
    save(tmp_path)

    def damage(state):
        del state["encoder.encoder.layers.1.attention.k_proj.weight"]
        del state["decoder.bert.embeddings.position_embeddings.weight"]
        state["decoder.bert.encoder.layer.0.output.dense.weight"] = np.zeros((3, 4), np.float32)
        state["encoder.feature_projection.projection.bias"] = np.zeros(5, np.float32)
        state["encoder.surprise"] = state["decoder.surprise"] = np.zeros(2, np.float32)
        return state | {"surprise.weight": np.zeros(1, np.float32)}

    edit(tmp_path, damage)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    message = str(caught.value)
    assert "model.safetensors" in message
    lines = [line.strip() for line in message.splitlines()]
    assert [line for line in lines if line.startswith("- ")] == [
        "- encoder/transformer/layers_1/self_attention/key/weight",
        "- decoder/positions/embedding",
    ]
    assert sorted(line for line in lines if line.startswith("+ ")) == [
        "+ decoder.surprise",
        "+ encoder.surprise",
        "+ surprise.weight",
    ]
    assert [line.partition(":")[0] for line in lines if line.startswith("! ")] == [
        "! encoder.feature_projection.projection.bias",
        "! decoder.bert.encoder.layer.0.output.dense.weight",
    ]
    assert "shape [3, 4], the config says [32, 40]" in message


def test_an_error_about_thousands_of_tensors_stays_readable(tmp_path):
    save(tmp_path, **{f"decoder.unknown{i}": np.zeros(1, np.float32) for i in range(1000)})
    with pytest.raises(CheckpointError, match="and 960 more") as caught:
        load(tmp_path)
    assert len(str(caught.value).splitlines()) < 50


@pytest.mark.parametrize(
    ("today", "earlier"),
    [
        (".parametrizations.weight.original0", ".weight_g"),
        (".parametrizations.weight.original1", ".weight_v"),
        (".LayerNorm.weight", ".LayerNorm.gamma"),
        (".LayerNorm.bias", ".LayerNorm.beta"),
        (".layer_norm.weight", ".layer_norm.gamma"),
    ],
)
def test_earlier_spellings_are_read(today, earlier, tmp_path):
    model = save(tmp_path)
    renamed = []

    def rename(state):
        renamed.extend(name for name in state if today in name)
        return {name.replace(today, earlier): tensor for name, tensor in state.items()}

    edit(tmp_path, rename)
    assert renamed
    assert_same_tree(load(tmp_path).params, model.params)


def test_two_spellings_of_one_tensor_must_agree(tmp_path):
    model = save(tmp_path)
    new = "encoder.encoder.pos_conv_embed.conv.parametrizations.weight.original0"
    old = "encoder.encoder.pos_conv_embed.conv.weight_g"
    edit(tmp_path, lambda state: state | {old: state[new]})
    assert_same_tree(load(tmp_path).params, model.params)
    edit(tmp_path, lambda state: state | {old: state[new] + 1})
    with pytest.raises(CheckpointError, match="original0"):
        load(tmp_path)


@pytest.mark.parametrize("decoder", TIED)
def test_a_tied_output_layer_may_be_stored_twice(decoder, tmp_path):
    model = save(tmp_path, "wav2vec2", decoder)
    output, embedding = TIED[decoder]
    edit(tmp_path, lambda state: state | {output: state[embedding].copy()})
    again = load(tmp_path)
    assert again.module.decoder.config.tied
    assert_same_tree(again.params, model.params)


@pytest.mark.parametrize("decoder", TIED)
def test_a_tied_output_layer_may_be_all_there_is(decoder, tmp_path):
    model = save(tmp_path, "wav2vec2", decoder)
    output, embedding = TIED[decoder]
    edit(tmp_path, lambda state: {output if n == embedding else n: t for n, t in state.items()})
    assert_same_tree(load(tmp_path).params, model.params)


@pytest.mark.parametrize("decoder", TIED)
def test_an_output_layer_that_differs_is_kept_untied(decoder, tmp_path):
    save(tmp_path / "given", "wav2vec2", decoder)
    output, embedding = TIED[decoder]
    edit(tmp_path / "given", lambda state: state | {output: state[embedding] + 1})
    model = load(tmp_path / "given")
    assert not model.module.decoder.config.tied
    assert not model.config.decoder.tie_word_embeddings
    head, tokens = model.params["decoder"]["head"]["weight"], model.params["decoder"]["tokens"]
    np.testing.assert_array_equal(np.asarray(head), np.asarray(tokens["embedding"]) + 1)

    model.save_pretrained(tmp_path / "again")
    again = load(tmp_path / "again")
    assert_same_tree(again.params, model.params)
    assert not again.config.decoder.tie_word_embeddings


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_with_an_output_layer_of_their_own_come_back_the_same(decoder, tmp_path):
    hf = deepcopy(DECODERS[decoder])
    hf.tie_word_embeddings = False
    model = make_model(ENCODERS["wav2vec2"], hf)
    assert "weight" in model.params["decoder"]["head"]
    model.save_pretrained(tmp_path)
    assert_same_tree(load(tmp_path).params, model.params)


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        ("bert", "decoder.bert.embeddings.position_ids"),
        ("gpt2", "decoder.transformer.h.0.attn.bias"),
        ("gpt2", "decoder.transformer.h.0.attn.masked_bias"),
        ("gpt2", "decoder.transformer.h.1.crossattention.bias"),
        ("gpt2", "decoder.transformer.h.1.crossattention.masked_bias"),
        ("bart", "decoder.final_logits_bias"),
        ("trocr", "decoder.model.decoder.embed_positions._float_tensor"),
        ("speech_to_text_2", "decoder.model.decoder.embed_positions.weights"),
    ],
)
def test_buffers_of_older_versions_are_ignored(decoder, name, tmp_path):
    model = save(tmp_path, "wav2vec2", decoder, **{name: np.ones((1, 4), np.float32)})
    assert_same_tree(load(tmp_path).params, model.params)


def test_a_vector_of_specaugment_that_the_config_does_not_use_is_ignored(tmp_path):
    hf = deepcopy(ENCODERS["wav2vec2"])
    hf.mask_time_prob = 0.0
    model = make_model(hf, DECODERS["bert"])
    model.save_pretrained(tmp_path)
    edit(tmp_path, lambda s: s | {"encoder.masked_spec_embed": np.ones(24, np.float32)})
    assert_same_tree(load(tmp_path).params, model.params)


def test_tensors_of_another_layer_count_are_unexpected(tmp_path):
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["encoder"]["num_hidden_layers"] = 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"\+ encoder\.encoder\.layers\.1\."):
        load(tmp_path)


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        ("encoder", {"hidden_size": 10**5, "num_attention_heads": 10}),
        ("encoder", {"intermediate_size": 10**9}),
        ("decoder", {"vocab_size": 10**9}),
        ("decoder", {"max_position_embeddings": 10**9}),
        ("decoder", {"hidden_size": 10**6, "num_attention_heads": 10}),
    ],
)
def test_a_config_that_is_far_too_large_is_refused_before_anything_is_allocated(
    part, fields, tmp_path
):
    save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[part] |= fields
    (tmp_path / "config.json").write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="! "):
        load(tmp_path)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000, f"{grown} kB"


def test_a_whole_whisper_is_saved_under_whispers_own_names(tmp_path):
    model = save(tmp_path, "whisper", "whisper")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["WhisperForConditionalGeneration"]
    names = read_safetensors(tmp_path / "model.safetensors")
    assert all(name.startswith(("model.encoder.", "model.decoder.")) for name in names)
    assert_same_tree(load(tmp_path).params, model.params)


def test_bfloat16_is_written_as_bfloat16(tmp_path):
    model = tiny_model("wav2vec2", "bert")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params)
    model.save_pretrained(tmp_path, params)
    stored = {tensor.dtype for tensor in read_safetensors(tmp_path / "model.safetensors").values()}
    assert stored == {np.dtype(ml_dtypes.bfloat16)}
