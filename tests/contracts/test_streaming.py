"""Contract: a generation that the host accompanies finds what one compiled loop finds."""

import jax
import numpy as np
import pytest
from contracts.models import shallow_model
from transformers import TextStreamer

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation import stretches

SPEECH = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
SETTINGS = {"max_length": 24, "eos_token_id": [9, 17, 30], "pad_token_id": 1}
MODES = {
    "greedy": {},
    "sampling": {"do_sample": True, "num_return_sequences": 3, "top_k": 0},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled beams": {"num_beams": 2, "do_sample": True},
    "groups": {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
}
RECORDED = {"output_scores": True, "output_logits": True, "output_log_probs": True}


class Reader:
    """Keeps what it is given, and how often it was told of the end."""

    def __init__(self):
        self.given, self.ends = [], 0

    def put(self, value):
        assert self.ends == 0
        self.given.append(np.asarray(value))

    def end(self):
        self.ends += 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stretch", [1, 5])
def test_in_stretches_the_same_is_found_as_in_one_loop(monkeypatch, mode, stretch):
    monkeypatch.setattr(stretches, "STRETCH", stretch)
    model, settings = shallow_model("bart"), SETTINGS | MODES[mode] | RECORDED
    key = jax.random.key(5)
    at_once = model.generate(SPEECH, prng_key=key, **settings)
    accompanied = model.generate(SPEECH, prng_key=key, max_time=1e6, **settings)
    assert at_once.sequences.shape[1] > 2 + stretch
    leaves, expected = jax.tree.leaves(accompanied), jax.tree.leaves(at_once)
    for found, value in zip(leaves, expected, strict=True):
        np.testing.assert_array_equal(found, value)


@pytest.mark.parametrize("mode", ["greedy", "sampling"])
def test_a_streamer_receives_the_prompt_and_then_every_token_once(mode):
    reader, prompt = Reader(), np.array([[0, 7, 8], [0, 5, 6]])
    settings = SETTINGS | MODES[mode]
    model = shallow_model("bart")
    found = model.generate(SPEECH, decoder_input_ids=prompt, streamer=reader, **settings)
    expected = model.generate(SPEECH, decoder_input_ids=prompt, **settings)
    np.testing.assert_array_equal(found.sequences, expected.sequences)
    assert reader.ends == 1
    assert reader.given[0].shape == (len(found.sequences), 3)
    assert {value.shape for value in reader.given[1:]} == {(len(found.sequences),)}
    heard = np.concatenate([reader.given[0], np.stack(reader.given[1:], axis=1)], axis=1)
    np.testing.assert_array_equal(heard, found.sequences)


def test_tokens_are_streamed_while_the_loop_runs(monkeypatch):
    """What a streamer does with the first tokens can stop the rest from being generated."""

    class Impatient(Reader):
        def put(self, value):
            super().put(value)
            if len(self.given) > 4:
                raise StopIteration

    steps = []
    proceed = stretches.proceed
    monkeypatch.setattr(stretches, "proceed", lambda *given: steps.append(1) or proceed(*given))
    with pytest.raises(StopIteration):
        shallow_model("bart").generate(
            SPEECH[:1], streamer=Impatient(), **SETTINGS | {"eos_token_id": None}
        )
    assert len(steps) == 1


def test_transformers_own_text_streamer_reads_along(capsys):
    class Spelling:
        def decode(self, tokens, **_):
            return "".join(f"{token} " for token in tokens)

    model = shallow_model("bart")
    found = model.generate(SPEECH[:1], streamer=TextStreamer(Spelling()), **SETTINGS)
    assert capsys.readouterr().out.split() == [str(token) for token in found.sequences[0]]


@pytest.mark.parametrize("mode", ["beams", "groups"])
def test_beams_are_not_streamed(mode):
    with pytest.raises(ConfigError, match="streamer"):
        shallow_model("bart").generate(SPEECH, streamer=Reader(), **SETTINGS | MODES[mode])


@pytest.mark.parametrize("mode", MODES)
def test_when_the_time_is_up_the_next_token_is_the_last(monkeypatch, mode):
    monkeypatch.setattr(stretches, "STRETCH", 3)
    hours = iter(range(0, 10**9, 3600))
    monkeypatch.setattr(stretches.time, "monotonic", lambda: next(hours))
    model, settings = shallow_model("bart"), SETTINGS | MODES[mode] | {"eos_token_id": None}
    in_time = model.generate(SPEECH, max_time=3600, **settings)
    assert in_time.sequences.shape[1] == 1 + 3 + 1
    shorter = model.generate(SPEECH, **settings | {"max_length": 5})
    np.testing.assert_array_equal(in_time.sequences, shorter.sequences)


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(ConfigError, match="tokenizer"):
        shallow_model("bart").generate(SPEECH, stop_strings=["."], **SETTINGS)
