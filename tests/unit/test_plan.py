"""What a search is compiled for, and what it only reads, follows from the settings alone."""

import numpy as np
import pytest

from speech_ed_flax.generation.plan import Limits, Plan, Record
from speech_ed_flax.generation.settings import GenerationSettings


def limits_of(prompt_length=3, **changes):
    settings = GenerationSettings(**{"max_length": 10, "eos_token_id": (2, 5)} | changes)
    return Limits.of(settings, prompt_length, Plan.of(settings, prompt_length))


@pytest.mark.parametrize("exponent", [0.0, 1.0, -1.3, 0.7, 2.0])
def test_scores_are_divided_by_float64_powers_rounded_to_float32(exponent):
    penalties = limits_of(length_penalty=exponent).penalties
    assert penalties.dtype == np.float32
    for length in range(4, 11):
        assert penalties[length] == np.float32(float(length - 3) ** exponent)


@pytest.mark.parametrize("early", [True, False, "never"])
@pytest.mark.parametrize("exponent", [-1.0, 0.0, 1.0])
def test_only_a_search_that_never_gives_up_hopes_for_the_longest_text(early, exponent):
    limits = limits_of(early_stopping=early, length_penalty=exponent)
    hopeful = early == "never" and exponent > 0
    expected = np.full(7, 7.0) if hopeful else np.arange(1.0, 8.0) ** exponent
    np.testing.assert_allclose(limits.best_penalties[4:11], expected)
    assert limits.stops_when_full == (early is True)


def test_a_pad_token_of_0_is_none_for_beams_alone():
    groups = {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 1.0}
    assert limits_of(pad_token_id=0).fill == 0
    assert limits_of(pad_token_id=0, num_beams=2).fill == 2
    assert limits_of(pad_token_id=0, **groups).fill == 0
    assert limits_of(num_beams=2, eos_token_id=()).fill == -1


def test_settings_that_are_numbers_leave_the_plan_as_it_is():
    one = GenerationSettings(max_length=10, num_beams=2)
    other = GenerationSettings(
        max_length=60,
        num_beams=2,
        length_penalty=0.3,
        early_stopping=True,
        repetition_penalty=1.4,
        eos_token_id=(7,),
    )
    assert hash(Plan.of(one, 1)) == hash(Plan.of(other, 1))
    assert Plan.of(one, 1) == Plan.of(other, 1)


def test_nothing_is_recorded_but_what_is_asked_for():
    def record(log_probs=False, **changes):
        return Plan.of(GenerationSettings(max_length=9, **changes), 1, None, log_probs).record

    assert record() == record(num_beams=3) == Record()
    assert record(output_logits=True) == Record(logits=True)
    assert record(output_attentions=True) == Record(attentions=True)
    assert record(output_scores=True) == Record(scores=True)
    assert record(output_scores=True, num_beams=2) == Record(scores=True, parents=True)
    assert record(log_probs=True, num_beams=2) == Record(log_probs=True, parents=True)


def test_rows_are_beams_or_returned_sequences():
    def copies(**changes):
        return Plan.of(GenerationSettings(max_length=9, **changes), 1).copies

    assert copies() == 1
    assert copies(num_beams=4, num_return_sequences=2) == 4
    assert copies(do_sample=True, num_return_sequences=3) == 3
