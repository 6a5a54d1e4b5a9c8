"""Weights in fewer bits: what they become, and what is computed with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import shallow_model

from speech_ed_flax import FlaxSpeechEncoderDecoderModel, precision
from speech_ed_flax.errors import ConfigError

SPEECH = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32)
TOKENS = np.array([[2, 5, 6], [2, 7, 8]])
SETTINGS = {"max_new_tokens": 6, "num_beams": 2}


@pytest.fixture(scope="module")
def model() -> FlaxSpeechEncoderDecoderModel:
    return shallow_model("bart")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


def test_a_row_of_integers_is_off_by_half_a_step_at_most():
    weight = jnp.asarray(np.random.default_rng(0).standard_normal((5, 7)), jnp.float32)
    weight = weight.at[2].set(0)
    narrow = precision.quantise({"a": {"weight": weight}}, "int8")["a"]["weight"]
    assert narrow.values.dtype == jnp.int8
    error = np.abs(np.asarray(narrow.widen() - weight))
    assert (error <= np.abs(weight).max(1, keepdims=True) / 127 / 2 + 1e-7).all()
    assert (np.abs(np.asarray(narrow.values)).max(1) == [127, 127, 0, 127, 127]).all()


def test_only_matrices_of_dense_layers_and_embeddings_become_integers(model):
    narrow = precision.quantise(model.params, "int8")
    for path, leaf in jax.tree_util.tree_leaves_with_path(narrow, is_leaf=precision.is_narrow):
        matrix = path[-1].key in ("weight", "embedding")
        assert precision.is_narrow(leaf) == matrix, path


def test_int8_weights_compute_what_their_widened_floats_do(model, folder):
    narrow = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, weights="int8")
    wide = precision.widen(narrow.params)
    np.testing.assert_array_equal(
        narrow(SPEECH, decoder_input_ids=TOKENS).logits,
        model(SPEECH, decoder_input_ids=TOKENS, params=wide).logits,
    )
    np.testing.assert_array_equal(
        narrow.generate(SPEECH, **SETTINGS).sequences,
        model.generate(SPEECH, params=wide, **SETTINGS).sequences,
    )
    difference = narrow.encode(SPEECH).last_hidden_state - model.encode(SPEECH).last_hidden_state
    assert 0 < np.abs(difference).max() < 0.2


def test_int8_weights_are_a_quarter_as_large():
    weight = jnp.zeros((256, 512))
    narrow = precision.quantise({"weight": weight}, "int8")
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(narrow)) == weight.nbytes // 4 + 4 * 256


def test_int8_weights_are_not_saved(folder, tmp_path):
    narrow = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, weights="int8")
    with pytest.raises(ConfigError, match="weights='int8'"):
        narrow.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unknown_weights_are_refused(folder):
    with pytest.raises(ConfigError, match="weights='int4' is not known"):
        FlaxSpeechEncoderDecoderModel.from_pretrained(folder, weights="int4")


@pytest.mark.parametrize("native", [False, True])
def test_bfloat16_is_computed_in_float32_where_it_is_emulated(monkeypatch, folder, native):
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: native)
    half = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype="bfloat16")
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(half.params))
    states = half.encode(SPEECH).last_hidden_state
    assert states.dtype == (jnp.bfloat16 if native else jnp.float32)
    assert half.init_cache(2, 4).layers[0].key.dtype == states.dtype
    found = half.generate(SPEECH, **SETTINGS).sequences
    assert found.shape[0] == 2
    if not native:
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half.params)
        expected = half.generate(SPEECH, params=wide, **SETTINGS).sequences
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("flags", "native"), [("fma avx2", False), ("avx512_bf16", True), ("amx_bf16", True)]
)
def test_the_flags_of_the_processor_tell_what_it_multiplies(tmp_path, flags, native):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert precision._cpu_has_bfloat16(tmp_path / "cpuinfo") == native
    assert not precision._cpu_has_bfloat16(tmp_path / "absent")
