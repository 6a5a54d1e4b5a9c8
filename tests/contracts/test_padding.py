"""Contract: with invariant padding a clip gives what it gives alone, whatever it is padded to."""

import jax
import numpy as np
import pytest
from contracts.models import (
    ENCODERS,
    PADDED_ENCODERS,
    assert_close,
    batch_of,
    shallow_model,
    tiny_model,
)

LENGTHS = [500, 333, 180]
BUCKET = 640
TOO_SHORT = 39
"""One sample less than the first frame of most encoders under test hears."""

NAN_SAFE = [
    name
    for name in PADDED_ENCODERS
    if getattr(ENCODERS[name], "feat_extract_norm", None) == "layer"
    and not getattr(ENCODERS[name], "add_adapter", False)
]
"""Encoders that read no padding even where they compute exactly what transformers does."""


class Clips:
    """Clips for one encoder, in proportion to the shortest one that gives a state."""

    def __init__(self, name):
        self.name = name
        shortest, *self.mels = tiny_model(name, "bart").module.encoder.config.input_shape
        self.too_short = shortest - 1
        self.lengths = [shortest * 25 // 2, shortest * 25 // 3, shortest * 9 // 2]
        self.bucket = 16 * shortest

    def batch(self, lengths=None, samples=None, padding=0.0):
        """Returns clips and mask, in the bucket unless the samples are given."""
        lengths = self.lengths if lengths is None else lengths
        samples = self.bucket if samples is None else samples
        return batch_of(lengths, samples, padding, tuple(self.mels))

    def encode(self, inputs, mask, padding="invariant"):
        """Returns states and mask as numpy arrays."""
        return encode(self.name, inputs, mask, padding)


@pytest.fixture(scope="module", params=PADDED_ENCODERS)
def clips(request):
    """One encoder at a time, so that its tests share what is compiled."""
    return Clips(request.param)


def encode(encoder, inputs, mask, padding="invariant"):
    """Returns states and mask as numpy arrays."""
    found = tiny_model(encoder, "bart", padding).encode(inputs, mask)
    mask = found.attention_mask
    return np.asarray(found.last_hidden_state), None if mask is None else np.asarray(mask)


def test_nan_in_the_padding_changes_nothing(clips):
    expected, real = clips.encode(*clips.batch())
    states, mask = clips.encode(*clips.batch(padding=np.nan))
    assert np.isfinite(states).all()
    assert (mask == real).all()
    assert_close(states[mask], expected[mask], 0)


def test_states_are_the_same_alone_in_a_batch_and_in_a_bucket(clips):
    in_bucket, bucket_mask = clips.encode(*clips.batch())
    in_batch, batch_mask = clips.encode(*clips.batch(samples=clips.lengths[0], padding=0.7))
    for row in range(len(clips.lengths)):
        assert_close(in_bucket[row][bucket_mask[row]], in_batch[row][batch_mask[row]])
    inputs, _ = clips.batch()
    alone, no_mask = clips.encode(inputs[1:2, : clips.lengths[1]], None)
    assert no_mask is None
    assert_close(in_batch[1][batch_mask[1]], alone[0])


@pytest.mark.parametrize("padding", ["invariant", "exact"])
def test_clips_shorter_than_a_frame_are_masked_and_disturb_no_other(clips, padding):
    expected, real = clips.encode(*clips.batch(), padding)
    first = clips.lengths[0]
    for short in ([clips.too_short, 0], [min(1, clips.too_short), clips.too_short]):
        states, mask = clips.encode(*clips.batch([first, *short]), padding)
        assert np.isfinite(states).all()
        assert not mask[1:].any()
        assert (mask[0] == real[0]).all()
        assert_close(states[0], expected[0], 1e-6)


def test_a_batch_shorter_than_a_frame_is_all_masked(clips):
    states, mask = clips.encode(np.ones((2, clips.too_short, *clips.mels), np.float32), None)
    assert np.isfinite(states).all()
    assert mask.shape == states.shape[:2]
    assert not mask.any()


def test_no_mask_is_a_mask_of_ones(clips):
    inputs, mask = clips.batch([clips.bucket] * 3)
    expected, no_mask = clips.encode(inputs, None, "exact")
    states, found = clips.encode(inputs, mask.astype(np.int32), "exact")
    assert no_mask is None
    assert found.all()
    assert_close(states, expected)


@pytest.mark.parametrize("layer_norm_encoder", NAN_SAFE)
def test_exact_mode_with_layer_norm_reads_no_padding_either(layer_norm_encoder):
    expected, mask = encode(layer_norm_encoder, *batch_of(LENGTHS, BUCKET), "exact")
    states, _ = encode(layer_norm_encoder, *batch_of(LENGTHS, BUCKET, padding=np.nan), "exact")
    assert_close(states[mask], expected[mask], 0)


def test_a_batch_without_samples_is_all_masked():
    states, mask = encode("wav2vec2-adapter", np.ones((2, 0), np.float32), None)
    assert np.isfinite(states).all()
    assert mask.shape == states.shape[:2]
    assert not mask.any()


@pytest.mark.parametrize("spectrogram", [n for n in ENCODERS if n not in PADDED_ENCODERS])
def test_encoders_of_spectrograms_hear_their_padding_and_read_no_mask(spectrogram):
    model = tiny_model(spectrogram, "bart")
    features = np.ones((2, *model.module.encoder.config.input_shape), np.float32)
    mask = np.zeros((2, features.shape[-1]), bool)
    expected, found = model.encode(features), model.encode(features, mask)
    assert found.attention_mask is None
    assert_close(found.last_hidden_state, expected.last_hidden_state, 0)


def test_logits_are_the_same_alone_and_in_a_bucket():
    model = shallow_model("gpt2", "invariant")
    tokens = np.array([[3, 9, 30, 7]])
    clips, mask = batch_of(LENGTHS, BUCKET, padding=np.nan)
    together = model(clips, mask, np.repeat(tokens, 3, axis=0)).logits
    alone = model(clips[1:2, : LENGTHS[1]], None, tokens).logits
    assert_close(together[1:2], alone)


@pytest.mark.parametrize(("decoder", "beams"), [("bart", 1), ("mbart", 3)])
def test_tokens_are_the_same_alone_in_a_bucket_and_beside_empty_clips(decoder, beams):
    model = shallow_model(decoder, "invariant")
    settings = {"num_beams": beams, "max_length": 10, "eos_token_id": None, "pad_token_id": 1}
    clips, mask = batch_of(LENGTHS, BUCKET, padding=np.nan)
    together = model.generate(clips, mask, **settings).sequences
    assert len({tuple(row) for row in together}) > 1, "the model does not listen"

    alone = model.generate(clips[2:, : LENGTHS[2]], **settings).sequences
    assert together[2:].tolist() == alone.tolist()

    found = model.generate(*batch_of([LENGTHS[0], TOO_SHORT, 0], BUCKET), **settings)
    assert found.sequences[0].tolist() == together[0].tolist()
    assert ((found.sequences >= 0) & (found.sequences < model.config.decoder.vocab_size)).all()
    assert found.sequences_scores is None or np.isfinite(found.sequences_scores).all()


def test_padding_and_empty_clips_have_no_part_in_gradients():
    model = shallow_model("bart", "invariant")
    labels = np.array([[9, 30, 7, 2], [9, 8, 2, -100], [-100] * 4])

    @jax.jit
    def gradient(params, clips, mask):
        return jax.grad(lambda p: model(clips, mask, labels=labels, params=p).loss)(params)

    lengths = [LENGTHS[0], LENGTHS[1], 0]
    expected = gradient(model.params, *batch_of(lengths, BUCKET))
    found = gradient(model.params, *batch_of(lengths, BUCKET, padding=5.0))
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-5 * max(1, abs(b).max())), found, expected)
