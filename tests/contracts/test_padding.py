"""Contract: with invariant padding a clip gives what it gives alone, whatever it is padded to."""

import jax
import numpy as np
import pytest
from contracts.models import ENCODERS, WAVEFORM_ENCODERS, batch_of, tiny_model

LENGTHS = [500, 333, 180]
BUCKET = 640
TOO_SHORT = 39
"""One sample less than the first frame of every encoder under test hears."""

NAN_SAFE = [
    name
    for name in WAVEFORM_ENCODERS
    if ENCODERS[name].feat_extract_norm == "layer" and not getattr(ENCODERS[name], "add_adapter", 0)
]
"""Encoders that read no padding even where they compute exactly what transformers does."""


def encode(encoder, clips, mask, padding="invariant"):
    """Returns states and mask as numpy arrays."""
    found = tiny_model(encoder, "bart", padding).encode(clips, mask)
    mask = found.attention_mask
    return np.asarray(found.last_hidden_state), None if mask is None else np.asarray(mask)


def assert_close(found, expected, tolerance=1e-5):
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("encoder", WAVEFORM_ENCODERS)
def test_nan_in_the_padding_changes_nothing(encoder):
    expected, real = encode(encoder, *batch_of(LENGTHS, BUCKET))
    states, mask = encode(encoder, *batch_of(LENGTHS, BUCKET, padding=np.nan))
    assert np.isfinite(states).all()
    assert (mask == real).all()
    assert_close(states[mask], expected[mask], 0)


@pytest.mark.parametrize("encoder", NAN_SAFE)
def test_nan_in_the_padding_changes_nothing_in_exact_mode_with_layer_norm(encoder):
    expected, mask = encode(encoder, *batch_of(LENGTHS, BUCKET), "exact")
    states, _ = encode(encoder, *batch_of(LENGTHS, BUCKET, padding=np.nan), "exact")
    assert_close(states[mask], expected[mask], 0)


@pytest.mark.parametrize("encoder", WAVEFORM_ENCODERS)
def test_states_are_the_same_alone_in_a_batch_and_in_a_bucket(encoder):
    in_bucket, bucket_mask = encode(encoder, *batch_of(LENGTHS, BUCKET))
    in_batch, batch_mask = encode(encoder, *batch_of(LENGTHS, LENGTHS[0], padding=0.7))
    clips, _ = batch_of(LENGTHS, BUCKET)
    for row, length in enumerate(LENGTHS[:2]):
        alone, no_mask = encode(encoder, clips[row : row + 1, :length], None)
        assert no_mask is None
        assert_close(in_batch[row][batch_mask[row]], alone[0])
        assert_close(in_bucket[row][bucket_mask[row]], alone[0])


@pytest.mark.parametrize("padding", ["exact", "invariant"])
@pytest.mark.parametrize("encoder", WAVEFORM_ENCODERS)
def test_no_mask_is_a_mask_of_ones(encoder, padding):
    clips, _ = batch_of([BUCKET] * 3, BUCKET)
    expected, no_mask = encode(encoder, clips, None, padding)
    states, mask = encode(encoder, clips, np.ones(clips.shape, np.int32), padding)
    assert no_mask is None
    assert mask.all()
    assert_close(states, expected)


@pytest.mark.parametrize("padding", ["exact", "invariant"])
@pytest.mark.parametrize("encoder", WAVEFORM_ENCODERS)
def test_clips_shorter_than_a_frame_are_masked_and_disturb_no_other(encoder, padding):
    expected, real = encode(encoder, *batch_of(LENGTHS, BUCKET), padding)
    for short in ([TOO_SHORT, 0], [1, TOO_SHORT]):
        states, mask = encode(encoder, *batch_of([LENGTHS[0], *short], BUCKET), padding)
        assert np.isfinite(states).all()
        assert not mask[1:].any()
        assert (mask[0] == real[0]).all()
        assert_close(states[0], expected[0], 1e-6)


@pytest.mark.parametrize("samples", [0, TOO_SHORT])
@pytest.mark.parametrize("encoder", WAVEFORM_ENCODERS)
def test_a_batch_shorter_than_a_frame_is_all_masked(encoder, samples):
    states, mask = encode(encoder, np.ones((2, samples), np.float32), None)
    assert np.isfinite(states).all()
    assert mask.shape == states.shape[:2]
    assert not mask.any()


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name not in WAVEFORM_ENCODERS])
def test_encoders_of_spectrograms_hear_their_padding_and_read_no_mask(encoder):
    model = tiny_model(encoder, "bart")
    features = np.ones((2, *model.module.encoder.config.input_shape), np.float32)
    mask = np.zeros((2, features.shape[-1]), bool)
    expected, found = model.encode(features), model.encode(features, mask)
    assert found.attention_mask is None
    assert_close(found.last_hidden_state, expected.last_hidden_state, 0)


@pytest.mark.parametrize(
    ("encoder", "decoder"), [("wav2vec2", "bart"), ("wav2vec2-adapter", "gpt2")]
)
def test_logits_are_the_same_alone_and_in_a_bucket(encoder, decoder):
    model = tiny_model(encoder, decoder, "invariant")
    tokens = np.array([[3, 9, 30, 7]])
    clips, mask = batch_of(LENGTHS, BUCKET, padding=np.nan)
    together = model(clips, mask, np.repeat(tokens, 3, axis=0)).logits
    alone = model(clips[1:2, : LENGTHS[1]], None, tokens).logits
    assert_close(together[1:2], alone)


@pytest.mark.parametrize(
    ("encoder", "decoder", "beams"),
    [("wav2vec2", "bert", 1), ("wav2vec2", "bart", 3), ("wav2vec2-adapter", "gpt2", 3)],
)
def test_generated_tokens_are_the_same_alone_and_in_a_bucket(encoder, decoder, beams):
    model = tiny_model(encoder, decoder, "invariant")
    clips, mask = batch_of(LENGTHS, BUCKET, padding=np.nan)
    settings = {"num_beams": beams, "max_length": 10}
    together = model.generate(clips, mask, **settings).sequences
    assert len({tuple(row) for row in together}) > 1, "the model does not listen"
    alone = model.generate(clips[1:2, : LENGTHS[1]], **settings).sequences
    length = alone.shape[1]
    assert together[1, :length].tolist() == alone[0].tolist()
    assert set(together[1, length:].tolist()) <= {
        model.generation_config.pad_token_id,
        model.generation_config.eos_token_id,
    }


@pytest.mark.parametrize(("decoder", "beams"), [("bert", 1), ("bart", 3)])
def test_generation_survives_clips_without_a_frame(decoder, beams):
    model = tiny_model("wav2vec2", decoder, "invariant")
    settings = {"num_beams": beams, "max_length": 10}
    expected = model.generate(*batch_of(LENGTHS, BUCKET), **settings).sequences
    found = model.generate(*batch_of([LENGTHS[0], TOO_SHORT, 0], BUCKET), **settings)
    assert ((found.sequences >= 0) & (found.sequences < model.config.decoder.vocab_size)).all()
    assert found.sequences_scores is None or np.isfinite(found.sequences_scores).all()
    length = min(expected.shape[1], found.sequences.shape[1])
    assert (found.sequences[0, :length] == expected[0, :length]).all()


@pytest.mark.parametrize("encoder", ["wav2vec2", "wav2vec2-adapter"])
def test_padding_and_empty_clips_have_no_part_in_gradients(encoder):
    model = tiny_model(encoder, "bart", "invariant")
    labels = np.array([[9, 30, 7, 2], [9, 8, 2, -100], [-100] * 4])

    @jax.jit
    def gradient(params, clips, mask):
        return jax.grad(lambda p: model(clips, mask, labels=labels, params=p).loss)(params)

    lengths = [LENGTHS[0], LENGTHS[1], 0]
    expected = gradient(model.params, *batch_of(lengths, BUCKET))
    found = gradient(model.params, *batch_of(lengths, BUCKET, padding=5.0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.isfinite(leaf).all(), path
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5 * max(1, abs(b).max())), found, expected)
