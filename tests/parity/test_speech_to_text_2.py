"""A checkpoint of Speech2Text2 as published, read here alone: numbers, tokens and texts are kept.

``tests/data/make_speech_to_text_2.py`` made it with the transformers that still ran it.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import assert_same_tree
from flax.traverse_util import flatten_dict
from transformers import AutoConfig, SpeechEncoderDecoderConfig, Wav2Vec2Config

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.assemble import assemble
from speech_ed_flax.conversion.halves import random_half, read_half
from speech_ed_flax.conversion.load import join_halves, parts_of
from speech_ed_flax.conversion.names import SPELLINGS, rename, select
from speech_ed_flax.conversion.safetensors import read_safetensors, write_safetensors
from speech_ed_flax.conversion.speech_to_text_2 import Speech2Text2Config, Speech2Text2Tokenizer
from speech_ed_flax.conversion.weights import read_weights
from speech_ed_flax.model import build

FOLDER = Path(__file__).parents[1] / "data" / "speech_to_text_2"
SINUSOIDS = "decoder.model.decoder.embed_positions.weights"
TEXTS = json.loads((FOLDER / "texts.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def model():
    return FlaxSpeechEncoderDecoderModel.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


def heard(expected):
    """Yields the suffix of what is expected, and the mask, which is of ones where there was none.

    No mask is all ones here, which is compiled once.
    """
    yield "", np.ones_like(expected["mask"])
    yield "_masked", expected["mask"]


def test_logits_and_loss_are_those_of_pytorch_with_a_mask_and_without(model, expected):
    for suffix, mask in heard(expected):
        found = model(expected["inputs"], mask, labels=expected["labels"])
        logits = expected["logits" + suffix]
        np.testing.assert_allclose(found.logits, logits, rtol=0, atol=1e-4)
        assert float(found.loss) == pytest.approx(float(expected["loss" + suffix]), rel=1e-5)


def test_padding_among_the_tokens_takes_no_position(model, expected):
    found = model(expected["inputs"], decoder_input_ids=expected["padded"])
    np.testing.assert_allclose(found.logits, expected["logits_padded"], rtol=0, atol=1e-4)


def test_every_gradient_is_that_of_pytorch(model, expected):
    """With the mask, which the last gradients were computed under."""
    given = {name.partition(" ")[2]: a for name, a in expected.items() if "gradient " in name}
    given["encoder.masked_spec_embed"] = np.zeros(24, np.float32)
    given = rename(given, SPELLINGS)
    states = {part: select(given, f"{part}.") for part in ("encoder", "decoder")}
    states["projection"] = {n: g for n, g in given.items() if n.startswith("enc_to_dec_proj.")}
    parts = parts_of(model.module, model.config, states)
    theirs, _ = assemble(model.module, parts, "the gradients", jnp.float32)
    inputs, mask, labels = (expected[name] for name in ("inputs", "mask", "labels"))
    ours = jax.grad(lambda p: model(inputs, mask, labels=labels, params=p).loss)(model.params)
    ours, theirs = flatten_dict(ours, sep="/"), flatten_dict(theirs, sep="/")
    assert ours.keys() == theirs.keys()
    for path, gradient in theirs.items():
        largest = np.abs(gradient).max()
        atol = 1e-4 * max(0.1, largest)
        np.testing.assert_allclose(ours[path], gradient, rtol=0, atol=atol, err_msg=path)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("start", [1, 2], ids=["from-padding", "from-the-end-token"])
def test_generated_tokens_are_those_of_pytorch(model, expected, start, beams):
    """A start token that is padding takes no position at once, and one in steps: as upstream."""
    settings = {"decoder_start_token_id": start, "eos_token_id": 5, "max_length": 12}
    inputs, mask = expected["inputs"], expected["mask"]
    found = model.generate(inputs, mask, num_beams=beams, **settings).sequences
    np.testing.assert_array_equal(found, expected[f"tokens_from_{start}_of_{beams}"])


def test_saved_again_every_tensor_is_to_the_bit_what_it_was(model, tmp_path):
    """But for the sinusoids, which nobody learned and every machine rounds in its own way."""
    model.save_pretrained(tmp_path)
    before = rename(dict(read_weights(FOLDER)[0]), SPELLINGS)
    after = dict(read_safetensors(tmp_path / "model.safetensors"))
    np.testing.assert_allclose(after.pop(SINUSOIDS), before.pop(SINUSOIDS), rtol=0, atol=1e-5)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], before[name]) for name in before)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert_same_tree(again.params, model.params)
    assert again.module == model.module


def test_generation_is_set_up_as_the_published_config_says(model):
    found = model.generation_config
    assert (found.num_beams, found.max_length, found.early_stopping) == (5, 200, True)
    ids = (found.decoder_start_token_id, found.eos_token_id, found.pad_token_id)
    assert ids == (2, 2, 1)


def test_its_decoder_is_half_of_another_model(model, tmp_path):
    decoder = tmp_path / "decoder"
    decoder.mkdir()
    model.config.decoder.save_pretrained(decoder)
    state = select(dict(read_weights(FOLDER)[0]), "decoder.")
    write_safetensors(decoder / "model.safetensors", state)
    encoder = random_half("encoder", {"model_type": "wav2vec2", "num_hidden_layers": 1})
    half = read_half("decoder", decoder, {})
    joined = join_halves(encoder, half, {}, "exact", jnp.float32, jax.random.key(0))
    assert_same_tree(joined.params["decoder"], model.params["decoder"])


def test_the_tokenizer_reads_and_writes_as_it_did(model, tmp_path):
    model.processor.tokenizer.save_pretrained(tmp_path)
    for tokenizer in (model.processor.tokenizer, Speech2Text2Tokenizer.from_pretrained(tmp_path)):
        found = [tokenizer(text).input_ids for text in TEXTS["texts"]]
        assert found == TEXTS["tokens"][: len(found)]
        for tokens, written in zip(TEXTS["tokens"], TEXTS["written"], strict=True):
            assert [tokenizer.decode(tokens, skip_special_tokens=s) for s in (True, False)] == (
                written
            )


def test_a_tokenizer_without_merges_writes_and_says_why_it_cannot_read(tmp_path):
    (tmp_path / "vocab.json").write_text((FOLDER / "vocab.json").read_text("utf-8"), "utf-8")
    tokenizer = Speech2Text2Tokenizer.from_pretrained(tmp_path)
    assert tokenizer.decode(TEXTS["tokens"][0]) == TEXTS["written"][0][1]
    with pytest.raises(ValueError, match=r"no merges\.txt"):
        tokenizer("liebe")


def test_the_published_config_is_read_with_every_flag():
    """Of facebook/s2t-wav2vec2-large-en-de: its decoder as it is, of 7 layers."""
    fields = {
        "model_type": "speech_to_text_2", "vocab_size": 10224, "d_model": 256,
        "decoder_layers": 7, "num_hidden_layers": 7, "decoder_attention_heads": 4,
        "decoder_ffn_dim": 2048, "activation_function": "relu", "scale_embedding": True,
        "attention_dropout": 0.0, "max_target_positions": 1024, "tie_word_embeddings": False,
        "decoder_start_token_id": 2, "pad_token_id": 1, "eos_token_id": 2, "bos_token_id": 0,
    }  # fmt: skip
    hf = AutoConfig.for_model(**fields)
    assert isinstance(hf, Speech2Text2Config)
    joint = SpeechEncoderDecoderConfig(encoder=Wav2Vec2Config().to_dict(), decoder=hf.to_dict())
    config = build(joint).decoder.config
    assert (config.width, config.layers, config.layer.heads, config.vocab) == (256, 7, 4, 10224)
    assert (config.layer.up_width, config.layer.activation) == (2048, "relu")
    assert (config.embedding_scale, config.position_offset) == (16.0, 2)
    assert not any((config.layer.pre_norm, config.tied, config.learned, config.embedding_norm))
