"""What generation returns besides tokens is what PyTorch returns."""

from contextlib import contextmanager

import numpy as np
import pytest
from families import SHALLOW, speech
from pytorch import tensor, torch

ENCODER = "wav2vec2"
LISTENERS = ("bart", "bert", "gpt2", "gpt_bigcode", "prophetnet", "whisper")
"""Decoders of every kind of attention; the others are made of the same."""
MODES = {
    "greedy": {"num_beams": 1},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 1.2},
}


@contextmanager
def attention_in_sight(pair):
    """Lets PyTorch compute attention in the one way that returns its weights."""
    config = pair.theirs.config
    parts = {"": config, "encoder": config.encoder, "decoder": config.decoder}
    before = {part: part_config._attn_implementation for part, part_config in parts.items()}
    pair.theirs.set_attn_implementation("eager")
    yield
    pair.theirs.set_attn_implementation(before)


def settings_of(pair, mode):
    config = pair.ours.config.decoder
    names = ("pad_token_id", "bos_token_id", "decoder_start_token_id")
    ids = {name: getattr(config, name) for name in names}
    return ids | {"eos_token_id": [9, 17, 30], "max_length": 12, "do_sample": False} | MODES[mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("decoder", ["bart", "gpt2"])
def test_scores_logits_and_log_probabilities_are_those_of_pytorch(pair, decoder, mode):
    pair, (inputs, _) = pair(ENCODER, decoder), speech(SHALLOW)
    settings = settings_of(pair, mode) | {"output_logits": True}
    theirs = pair.generate(inputs, None, **settings)
    ours = pair.ours.generate(inputs, output_scores=True, output_log_probs=True, **settings)
    np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
    for name in ("scores", "logits"):
        found, expected = getattr(ours, name), getattr(theirs, name)
        assert len(found) == len(expected)
        np.testing.assert_allclose(np.stack(found), torch.stack(expected).numpy(), atol=1e-4)
    indices = theirs.beam_indices if mode == "beams" else None
    chances = pair.theirs.compute_transition_scores(
        theirs.sequences, theirs.scores, indices, normalize_logits=indices is None
    ).numpy()
    if mode == "beams":
        np.testing.assert_array_equal(ours.beam_indices, theirs.beam_indices.numpy())
        np.testing.assert_allclose(ours.sequences_scores, theirs.sequences_scores, atol=1e-4)
    text = ours.token_log_probs != 0
    assert text.any(axis=1).all()
    np.testing.assert_allclose(ours.token_log_probs[text], chances[text], atol=1e-4)


@pytest.mark.parametrize("decoder", LISTENERS)
def test_cross_attention_of_a_generation_is_that_of_pytorchs_steps(pair, decoder):
    pair, (inputs, mask) = pair(ENCODER, decoder), speech(SHALLOW)
    settings = settings_of(pair, "greedy") | {"output_attentions": True}
    for real in (None, mask) if pair.hears_masks else (None,):
        with attention_in_sight(pair):
            theirs = pair.generate(inputs, real, **settings)
        ours = pair.ours.generate(inputs, real, **settings)
        np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
        for index, found in enumerate(ours.cross_attentions):
            steps = [step[index] for step in theirs.cross_attentions]
            expected = torch.cat(steps, dim=2).numpy()
            assert found.shape == expected.shape
            np.testing.assert_allclose(found, expected, atol=1e-5)


def test_cross_attention_of_returned_beams_is_that_of_their_texts(pair):
    pair, (inputs, mask) = pair(ENCODER, "bart"), speech(SHALLOW)
    settings = settings_of(pair, "beams") | {"output_attentions": True}
    ours = pair.ours.generate(inputs, mask, **settings)
    rows = [np.repeat(given, 2, axis=0) for given in (inputs, mask)]
    with torch.no_grad(), attention_in_sight(pair):
        expected = pair.theirs(
            tensor(rows[0]),
            attention_mask=tensor(rows[1]),
            decoder_input_ids=tensor(ours.sequences[:, :-1]),
            output_attentions=True,
        ).cross_attentions
    assert len(ours.cross_attentions) == len(expected)
    for found, weights in zip(ours.cross_attentions, expected, strict=True):
        np.testing.assert_allclose(found, weights.numpy(), atol=1e-5)
