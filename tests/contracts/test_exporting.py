"""Contract: one exported program finds the tokens of ``generate`` for any batch and length."""

from functools import partial

import families
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import ENCODERS, make_model, random_params
from flax.traverse_util import flatten_dict, unflatten_dict

from speech_ed_flax import ConfigError
from speech_ed_flax.encoders.wavlm import buckets_of
from speech_ed_flax.exporting.lengths import Lengths, lengths_of
from speech_ed_flax.exporting.program import export_program, input_shapes
from speech_ed_flax.layers.disentangled import rows_of
from speech_ed_flax.layers.sizes import count, larger, surely, tabulate
from speech_ed_flax.model import abstract_params, build

BEAMS = {"num_beams": 2, "max_new_tokens": 6}
GREEDY = {"max_new_tokens": 6}
PROGRAMS = {
    "wav2vec2": ("bart", GREEDY),
    "whisper": ("whisper", BEAMS),
    "speech_to_text": ("bart", BEAMS),
    "wav2vec2-conformer": ("gpt2", GREEDY),
    "wavlm": ("gpt2", BEAMS),
}
MULTILINGUAL = {
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": 5, "<|de|>": 6, "<|fr|>": 7},
    "task_to_id": {"transcribe": 8},
    "no_timestamps_token_id": 9,
}
"""Of a Whisper that is not told the language: the program detects it."""
OPEN_BRANCHES = ("moonshine", "wav2vec2-bert", "sew-d", "speecht5")
"""Encoders with code for open lengths that no encoder of ``PROGRAMS`` has."""
OTHERS = [name for name in families.ENCODERS if name not in (*PROGRAMS, *OPEN_BRANCHES)]


FRONT = {"num_feat_extract_layers": 1, "conv_dim": (8,), "conv_kernel": (25,), "conv_stride": (20,)}
"""One convolution in the place of three."""


def shallow(config):
    """Returns a copy with one layer on each side: nothing else differs, and it compiles sooner."""
    names = ("num_hidden_layers", "encoder_layers", "decoder_layers", "n_layer")
    fields = {name: 1 for name in names if hasattr(config, name)}
    if config.model_type in ("wav2vec2-conformer", "wavlm", "sew-d", "speecht5"):
        fields |= FRONT
    return families.vary(config, **fields)


def padded(speech, mask, lengths: Lengths, more: int = 0):
    """Pads to a length that the program hears, and by so many steps more."""
    missing = lengths.fit(mask.shape[1]) - mask.shape[1] + more * lengths.step
    if not missing:
        return speech, mask
    beside = ((0, 0),) * (speech.ndim - 2)
    return np.pad(speech, ((0, 0), (0, missing), *beside)), np.pad(mask, ((0, 0), (0, missing)))


@pytest.mark.parametrize("encoder", PROGRAMS)
def test_one_program_for_all_platforms_finds_the_tokens_of_generate(encoder):
    decoder, settings = PROGRAMS[encoder]
    model = make_model(shallow(ENCODERS[encoder]), shallow(families.DECODERS[decoder]))
    if encoder == "whisper":
        vars(model.generation_config).update(MULTILINGUAL)
    written = export_program(model, **settings).serialize()
    program = jax.export.deserialize(written)
    assert program.platforms == ("cpu", "cuda", "tpu")
    weights = flatten_dict(model.params, sep="/")
    speech, mask = families.speech(ENCODERS[encoder])
    mask, lengths = mask.astype(bool), lengths_of(model.module.encoder.config)
    expected = model.with_padding("invariant").generate(
        speech, mask, output_log_probs=True, **settings
    )
    size = expected.sequences.shape[1]
    for rows, more in ((slice(0, 3), 0), (slice(1, 2), 3)):
        found = program.call(weights, *padded(speech[rows], mask[rows], lengths, more))
        assert np.array_equal(found["tokens"][:, :size], expected.sequences[rows])
        np.testing.assert_allclose(found["confidence"], expected.confidence[rows], atol=1e-4)
        if settings is BEAMS:
            np.testing.assert_allclose(found["scores"], expected.sequences_scores[rows], atol=1e-4)
    assert int(found["lengths"].max()) <= size
    if encoder == "whisper":
        assert set(expected.sequences[:, 1]) <= {5, 6, 7}


def encoder_alone(name: str, params):
    """Returns a shallow encoder in a model, its parameters, and the model's function ``encode``."""
    config = families.joint(shallow(ENCODERS[name]), shallow(families.DECODERS["bart"]))
    module = build(config, "invariant")
    return (
        module,
        params(module),
        lambda tree, *speech: module.apply({"params": tree}, *speech, method="encode"),
    )


@pytest.mark.parametrize("name", OTHERS)
def test_the_other_encoders_are_traced_with_open_sizes(name):
    module, params, encode = encoder_alone(name, abstract_params)
    inputs = input_shapes(module.encoder.config)
    states, real = jax.eval_shape(encode, unflatten_dict(params, sep="/"), *inputs)
    assert str(states.shape[0]) == "batch"
    assert not isinstance(states.shape[1], int)
    assert real.shape == states.shape[:2]


@pytest.mark.parametrize("name", OPEN_BRANCHES)
def test_an_encoder_computes_the_same_whether_sizes_are_open_or_known(name):
    module, params, encode = encoder_alone(name, random_params)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), params)
    inputs = input_shapes(module.encoder.config)
    program = jax.export.export(jax.jit(encode), platforms=["cpu"])(shapes, *inputs)
    speech, mask = families.speech(ENCODERS[name])
    given = padded(speech, mask.astype(bool), lengths_of(module.encoder.config))
    expected, real = jax.jit(encode)(params, *given)
    states, also = program.call(params, *given)
    assert np.array_equal(real, also)
    np.testing.assert_allclose(states, expected, atol=1e-5)


def test_what_is_tabulated_is_the_function_itself():
    distances = np.arange(-3_000, 3_000)
    for function in (
        partial(buckets_of, buckets=320, farthest=800),
        partial(buckets_of, buckets=12, farthest=20),
        partial(rows_of, span=256, farthest=512),
        partial(rows_of, span=7, farthest=12),
        partial(rows_of, span=12, farthest=None),
    ):
        expected = function(distances)
        assert np.array_equal(tabulate(function, distances), expected)
        assert np.array_equal(tabulate(function, jnp.asarray(distances)), expected)


def test_known_sizes_are_what_python_makes_of_them():
    (size,) = jax.export.symbolic_shape("size")
    assert (larger(3, 5), isinstance(count(4), np.ndarray)) == (5, True)
    assert [surely(lambda: 2 < 3), surely(lambda: 3 < 2)] == [True, False]
    assert [surely(lambda: size > 3), surely(lambda: size > 0)] == [False, True]


def test_what_cannot_be_exported_is_refused_by_name():
    model = make_model(families.SHALLOW, shallow(families.DECODERS["bart"]))
    with pytest.raises(ConfigError, match="max_time"):
        export_program(model, max_time=2.0)
