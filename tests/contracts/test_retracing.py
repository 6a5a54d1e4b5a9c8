"""Contract: settings that are numbers compile nothing anew, in the model's own ``generate``."""

import jax
import numpy as np
import pytest
from contracts.models import shallow_model

from speech_ed_flax.generation.steps import Rules

SPEECH = np.random.default_rng(0).standard_normal((2, 300)).astype(np.float32)
COMMON = {
    "max_new_tokens": 8,
    "eos_token_id": [9, 17],
    "pad_token_id": 1,
    "repetition_penalty": 1.2,
    "forced_bos_token_id": 7,
    "min_new_tokens": 2,
    "suppress_tokens": [5, 6],
}
CHANGES = {
    "max_new_tokens": 20,
    "eos_token_id": [3, 4],
    "pad_token_id": 0,
    "repetition_penalty": 1.9,
    "forced_bos_token_id": 11,
    "min_new_tokens": 5,
    "suppress_tokens": [8],
}
MODES = {
    "greedy": ({}, {}),
    "sampling": ({"temperature": 0.7, "top_p": 0.9}, {"temperature": 1.4, "top_p": 0.8}),
    "beams": (
        {"num_beams": 3, "length_penalty": 1.0, "early_stopping": False},
        {"length_penalty": -0.5, "early_stopping": "never"},
    ),
    "groups": (
        {"num_beams": 4, "num_beam_groups": 2, "diversity_penalty": 0.5},
        {"diversity_penalty": 2.0, "length_penalty": 2.0, "early_stopping": True},
    ),
}


@pytest.fixture
def traces(monkeypatch):
    """Lists how often the scores of a step were traced."""
    seen, apply = [], Rules.apply

    def counting(self, *given):
        seen.append(1)
        return apply(self, *given)

    monkeypatch.setattr(Rules, "apply", counting)
    jax.clear_caches()
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_number_is_not_traced_again(mode, traces):
    model, (settings, changes) = shallow_model("bart"), MODES[mode]
    settings = COMMON | settings | {"do_sample": mode == "sampling"}
    first = model.generate(SPEECH, **settings).sequences
    once = len(traces)
    assert once > 0
    for name, value in (CHANGES | changes).items():
        model.generate(SPEECH, prng_key=jax.random.key(3), **settings | {name: value})
        assert len(traces) == once, name
    everything = model.generate(SPEECH, **settings | CHANGES | changes).sequences
    assert len(traces) == once
    assert everything.shape != first.shape or (everything != first).any()


def test_more_new_tokens_than_there_is_room_for_are_traced_again(traces):
    model = shallow_model("bart")
    model.generate(SPEECH, decoder_input_ids=[[0, 5]] * 2, max_new_tokens=4)
    once = len(traces)
    model.generate(SPEECH, decoder_input_ids=[[0, 5, 6]] * 2, max_new_tokens=4)
    assert len(traces) > once
