"""The main road in one minute, for every version of Python and jax that is claimed."""

import jax
import numpy as np
import pytest
from families import DECODERS, ENCODERS, joint, speech, text

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.cli import main

PAIRS = [("wav2vec2-adapter", "bart"), ("hubert", "gpt2"), ("whisper", "bert")]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def model_and_speech(request):
    encoder, decoder = request.param
    config = joint(ENCODERS[encoder], DECODERS[decoder])
    return FlaxSpeechEncoderDecoderModel(config), speech(ENCODERS[encoder])


def test_a_model_learns_generates_and_survives_a_save(model_and_speech, tmp_path):
    model, (inputs, mask) = model_and_speech

    def loss(params):
        key = jax.random.key(1)
        return model(inputs, mask, labels=text(), params=params, train=True, dropout_rng=key).loss

    value, gradients = jax.value_and_grad(loss)(model.params)
    assert np.isfinite(value)
    assert any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradients))

    settings = {"max_length": 8, "do_sample": False}
    greedy = model.generate(inputs, mask, **settings).sequences
    beams = model.generate(inputs, mask, num_beams=3, num_return_sequences=2, **settings)
    sampled = model.generate(inputs, mask, max_length=8, do_sample=True, top_k=5).sequences
    assert greedy.shape[0] == sampled.shape[0] == 3
    assert beams.sequences.shape[0] == beams.sequences_scores.shape[0] == 6

    model.save_pretrained(tmp_path)
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, model.params)
    np.testing.assert_array_equal(again.generate(inputs, mask, **settings).sequences, greedy)


def test_the_command_line_answers_and_the_doctor_is_content(capsys):
    assert main(["doctor"]) == 0
    assert "jax" in capsys.readouterr().out
