"""SpecAugment: transformers' statistics, drawn in jit, on exactly under its key."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import SHALLOW_ENCODER, batch_of, random_params
from families import DECODERS, WHISPER, joint, speech, vary
from transformers import WhisperConfig

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.augment import Spans, draw_spans
from speech_ed_flax.model import build

ROWS = 400
AXIS = 60
LENGTHS = np.tile([60, 41, 12, 3], ROWS // 4)
SPANS = [Spans(0.3, 5, 0), Spans(0.065, 10, 2), Spans(0.9, 4, 0), Spans(0.02, 7, 0)]


def draw(seed: int, spans: Spans, lengths: np.ndarray = LENGTHS) -> np.ndarray:
    drawn = jax.jit(partial(draw_spans, axis=AXIS, spans=spans))
    return np.asarray(drawn(jax.random.key(seed), jnp.asarray(lengths)))


def runs(rows: np.ndarray) -> np.ndarray:
    """Returns the lengths of all stretches of masked positions."""
    edges = np.diff(np.pad(rows.astype(int), ((0, 0), (1, 1))))
    return np.flatnonzero(edges.ravel() < 0) - np.flatnonzero(edges.ravel() > 0)


@pytest.mark.parametrize("spans", SPANS, ids=str)
def test_as_much_is_masked_as_transformers_masks(spans):
    torch = pytest.importorskip("torch")
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    np.random.seed(0)  # transformers draws from it
    few = LENGTHS[:4]  # the number of spans is rounded alike in all rows of a batch of theirs
    mask = torch.from_numpy(np.arange(AXIS) < few[:, None])
    arguments = ((len(few), AXIS), spans.share, spans.size, mask, spans.fewest)
    theirs = np.concatenate([_compute_mask_indices(*arguments) for _ in range(800)])
    ours = np.concatenate([draw(seed, spans) for seed in range(8)])
    for length in few[:3]:
        found = ours[np.tile(length == LENGTHS, 8), :length]
        expected = theirs[np.tile(length == few, 800), :length]
        assert abs(found.mean() - expected.mean()) < 0.03
        np.testing.assert_allclose(found.mean(0), expected.mean(0), atol=0.1)
        assert found.any() == expected.any()
        if expected.any():
            assert runs(found).min() == runs(expected).min() >= spans.size
            np.testing.assert_allclose(runs(found).mean(), runs(expected).mean(), rtol=0.05)


@pytest.mark.parametrize("spans", SPANS, ids=str)
def test_nothing_beyond_the_length_or_too_short_for_a_span_is_masked(spans):
    hidden = draw(0, spans)
    assert not hidden[np.arange(AXIS) >= LENGTHS[:, None]].any()
    assert not hidden[spans.size > LENGTHS].any()


def test_every_row_and_every_key_is_masked_differently_and_one_key_always_alike():
    whole = np.full(8, AXIS)
    first, second = (draw(seed, SPANS[0], whole) for seed in (0, 1))
    assert len(np.unique(first, axis=0)) == 8
    assert (first != second).any()
    np.testing.assert_array_equal(first, draw(0, SPANS[0], whole))


def encoder_of(hf):
    """Returns a function of inputs, mask and keys that encodes, and its parameters."""
    module = build(joint(hf, DECODERS["gpt2"]))
    params = {"params": random_params(module)}

    @jax.jit
    def encode(inputs, mask, keys):
        return module.apply(params, inputs, mask, method="encode", rngs=keys)[0]

    return encode


def test_an_encoder_is_masked_under_a_key_and_only_so():
    encode = encoder_of(SHALLOW_ENCODER)
    waveform, mask = batch_of([900, 500], 900)
    plain = encode(waveform, mask, {})
    first, second = (encode(waveform, mask, {"augment": jax.random.key(i)}) for i in (0, 1))
    np.testing.assert_array_equal(plain, encode(waveform, mask, {}))
    assert np.abs(first - plain).max() > 1e-2
    assert np.abs(first - second).max() > 1e-2


@pytest.mark.parametrize(
    "fields",
    [
        {"apply_spec_augment": False},
        {"mask_time_prob": 0.0, "mask_feature_prob": 0.0},
        {"mask_time_length": 1000},  # longer than any sequence here
    ],
    ids=str,
)
def test_a_config_without_spec_augment_masks_nothing_under_a_key(fields):
    encode = encoder_of(vary(SHALLOW_ENCODER, **fields))
    waveform, mask = batch_of([900, 500], 900)
    masked = encode(waveform, mask, {"augment": jax.random.key(0)})
    np.testing.assert_array_equal(masked, encode(waveform, mask, {}))


def test_features_are_masked_where_the_config_asks_for_it():
    fields = {"mask_time_prob": 0.0, "mask_feature_prob": 0.5, "mask_feature_length": 4}
    encode = encoder_of(vary(SHALLOW_ENCODER, **fields))
    waveform, mask = batch_of([900, 500], 900)
    masked = encode(waveform, mask, {"augment": jax.random.key(0)})
    assert np.abs(masked - encode(waveform, mask, {})).max() > 1e-2


def test_whisper_is_masked_where_its_config_asks_for_it():
    hf = WhisperConfig(**WHISPER, apply_spec_augment=True, mask_time_prob=0.3, mask_time_length=4)
    keys = {"augment": jax.random.key(0)}
    inputs, mask = speech(hf)
    encode = encoder_of(hf)
    mask = mask.astype(bool)
    assert np.abs(encode(inputs, mask, keys) - encode(inputs, mask, {})).max() > 1e-2


@pytest.mark.parametrize("fields", [{"mask_time_length": 0}, {"mask_time_min_masks": -1}], ids=str)
def test_spans_that_make_no_sense_are_refused(fields):
    with pytest.raises(ConfigError, match=r"encoder.*(size=0|fewest=-1)"):
        build(joint(vary(SHALLOW_ENCODER, **fields), DECODERS["gpt2"]))
