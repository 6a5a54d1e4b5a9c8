"""Generation settings: what a transformers config resolves to, and what is refused."""

import dataclasses

import pytest
from transformers import GenerationConfig

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.settings import GenerationSettings


def test_empty_config_gives_the_global_defaults_and_twenty_new_tokens():
    settings = GenerationSettings.from_hf(GenerationConfig(), prompt_length=3)
    assert settings == GenerationSettings(max_length=23)
    defaults = GenerationConfig._get_default_generation_params()
    shared = {field.name for field in dataclasses.fields(settings)} & set(defaults)
    empty = {None: ((), None), "max_length": (23,)}
    for name in shared:
        expected = empty.get(name, empty.get(defaults[name], (defaults[name],)))
        assert getattr(settings, name) in expected, name


@pytest.mark.parametrize(
    ("config", "max_length", "min_length"),
    [
        ({"max_length": 30}, 30, 0),
        ({"max_length": 30, "max_new_tokens": 5}, 9, 0),
        ({"max_new_tokens": 5, "min_length": 6}, 9, 6),
        ({"max_new_tokens": 5, "min_length": 6, "min_new_tokens": 1}, 9, 5),
    ],
)
def test_counts_of_new_tokens_win_over_total_lengths(config, max_length, min_length):
    settings = GenerationSettings.from_hf(GenerationConfig(**config), prompt_length=4)
    assert (settings.max_length, settings.min_length) == (max_length, min_length)


@pytest.mark.parametrize(
    ("eos", "pad", "resolved_eos", "row_fill", "beam_fill"),
    [
        (2, 1, (2,), 1, 1),
        ([2, 3], None, (2, 3), 2, 2),
        (2, 0, (2,), 0, 2),
        (None, 1, (), 1, -1),
    ],
)
def test_end_and_pad_tokens_resolve_as_upstream(eos, pad, resolved_eos, row_fill, beam_fill):
    config = GenerationConfig(eos_token_id=eos, pad_token_id=pad)
    settings = GenerationSettings.from_hf(config, prompt_length=1)
    assert settings.eos_token_id == resolved_eos
    assert (settings.row_fill, settings.beam_fill) == (row_fill, beam_fill)


def test_settings_with_every_list_set_are_hashable():
    config = GenerationConfig(
        bad_words_ids=[[1, 2], [3]],
        suppress_tokens=[4],
        begin_suppress_tokens=[5, 6],
        forced_eos_token_id=[7, 8],
        eos_token_id=[7, 8],
    )
    settings = GenerationSettings.from_hf(config, prompt_length=1)
    assert hash(settings) == hash(GenerationSettings.from_hf(config, prompt_length=1))
    assert settings.bad_words_ids == ((1, 2), (3,))
    assert settings.forced_eos == (7, 8)


UNSUPPORTED = {
    "guidance_scale": 2.0,
    "watermarking_config": {"greenlist_ratio": 0.25},
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "constraints": ["any"],
    "force_words_ids": [[3]],
    "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 2,
    "token_healing": True,
    "low_memory": True,
    "forced_decoder_ids": [[1, 5]],
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_setting_is_refused_by_name(name):
    config = GenerationConfig(num_beams=2, **{name: UNSUPPORTED[name]})
    with pytest.raises(ConfigError, match=name):
        GenerationSettings.from_hf(config, prompt_length=1)


BIASES = (((3, 4), -1.0), ((5,), 2.0))
DECAY = {"exponential_decay_length_penalty": (5, 1.1), "eos_token_id": (2,)}


@pytest.mark.parametrize(
    ("given", "resolved"),
    [
        ({"num_beam_groups": 2, "diversity_penalty": 0.5, "num_beams": 4}, {}),
        ({"sequence_bias": [[[3, 4], -1.0], [[5], 2]]}, {"sequence_bias": BIASES}),
        ({"sequence_bias": {(3, 4): -1.0}}, {"sequence_bias": BIASES[:1]}),
        ({"exponential_decay_length_penalty": [5, 1.1], "eos_token_id": 2}, DECAY),
        ({"stop_strings": "end"}, {"stop_strings": ("end",)}),
        ({"stop_strings": ["end", "."]}, {"stop_strings": ("end", ".")}),
        ({"max_time": 2}, {"max_time": 2.0}),
        ({"encoder_repetition_penalty": 1.5, "encoder_no_repeat_ngram_size": 2}, {}),
        ({"remove_invalid_values": True, "renormalize_logits": True}, {}),
        ({"output_scores": True, "output_logits": True, "output_attentions": True}, {}),
        ({"do_sample": True, "typical_p": 0.9, "min_p": 0.1, "top_h": 0.4}, {}),
        ({"do_sample": True, "epsilon_cutoff": 1e-3, "eta_cutoff": 2e-3}, {}),
    ],
    ids=str,
)
def test_setting_is_resolved_to_a_hashable_value(given, resolved):
    settings = GenerationSettings.from_hf(GenerationConfig(**given), prompt_length=1)
    for name, value in (given | resolved).items():
        assert getattr(settings, name) == value
    assert hash(settings) == hash(dataclasses.replace(settings))


@pytest.mark.parametrize(
    "given",
    [
        {"sequence_bias": [[3, 4]]},
        {"sequence_bias": [[[3], "much"]]},
        {"exponential_decay_length_penalty": 5, "eos_token_id": 2},
    ],
    ids=str,
)
def test_value_of_the_wrong_form_is_refused_by_name(given):
    with pytest.raises(ConfigError, match=next(iter(given))):
        GenerationSettings.from_hf(GenerationConfig(**given), prompt_length=1)


def test_settings_of_sampling_are_not_checked_without_it():
    GenerationSettings(max_length=8, min_p=3.0, typical_p=0.0, temperature=0.0)


def test_upstream_defaults_written_out_are_not_refused():
    defaults = GenerationConfig._get_default_generation_params()
    for do_sample in (False, True):
        config = GenerationConfig(**(defaults | {"do_sample": do_sample}))
        assert GenerationSettings.from_hf(config, prompt_length=1).max_length == 20


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences"),
        ({"num_return_sequences": 2}, "num_return_sequences"),
        ({"num_beams": 0}, "num_beams"),
        ({"min_length": -1}, "min_length"),
        ({"do_sample": True, "temperature": 0.0}, "temperature"),
        ({"do_sample": True, "top_p": 0.0}, "top_p"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"no_repeat_ngram_size": -1}, "no_repeat_ngram_size"),
        ({"bad_words_ids": ((),)}, "bad_words_ids"),
        ({"bad_words_ids": ((-1,),)}, "bad_words_ids"),
        ({"sequence_bias": (((), 1.0),)}, "sequence_bias"),
        ({"sequence_bias": (((-3,), 1.0),)}, "sequence_bias"),
        ({"encoder_repetition_penalty": 0.0}, "encoder_repetition_penalty"),
        ({"encoder_no_repeat_ngram_size": -1}, "encoder_no_repeat_ngram_size"),
        ({"num_beam_groups": 0}, "num_beam_groups"),
        ({"num_beam_groups": 2, "num_beams": 3, "diversity_penalty": 0.5}, "num_beam_groups"),
        ({"num_beam_groups": 2, "num_beams": 4}, "diversity_penalty"),
        ({"diversity_penalty": 0.5, "num_beams": 4}, "diversity_penalty"),
        (
            {"num_beam_groups": 2, "num_beams": 4, "diversity_penalty": 1.0, "do_sample": True},
            "do_sample",
        ),
        ({"max_time": 0.0}, "max_time"),
        ({"stop_strings": ("",)}, "stop_strings"),
        ({"exponential_decay_length_penalty": (1, 1.1)}, "eos_token_id"),
        (
            {"exponential_decay_length_penalty": (1, 0.0), "eos_token_id": (2,)},
            "exponential_decay_length_penalty",
        ),
        ({"do_sample": True, "min_p": 1.5}, "min_p"),
        ({"do_sample": True, "min_p": -0.1}, "min_p"),
        ({"do_sample": True, "top_h": 0.0}, "top_h"),
        ({"do_sample": True, "typical_p": 0.0}, "typical_p"),
        ({"do_sample": True, "epsilon_cutoff": 2.0}, "epsilon_cutoff"),
        ({"do_sample": True, "eta_cutoff": -1.0}, "eta_cutoff"),
        ({"suppress_tokens": (2,), "forced_eos_token_id": 2}, "forced_eos_token_id"),
        ({"suppress_tokens": (2, 3), "forced_bos_token_id": 3}, "forced_bos_token_id"),
    ],
)
def test_invalid_value_is_refused_by_name(values, name):
    with pytest.raises(ConfigError, match=name):
        GenerationSettings(max_length=8, **values)


def test_prompt_that_leaves_no_room_is_refused():
    with pytest.raises(ConfigError, match="max_length"):
        GenerationSettings.from_hf(GenerationConfig(max_length=4), prompt_length=4)


@pytest.mark.parametrize(
    "values",
    [
        {"eos_token_id": [2, 50]},
        {"pad_token_id": 50},
        {"bad_words_ids": [[1, 50]]},
        {"sequence_bias": [[[1, 50], 1.0]]},
        {"forced_bos_token_id": 50},
        {"forced_eos_token_id": 50},
    ],
)
def test_token_beyond_the_vocabulary_is_refused_by_name(values):
    config = GenerationConfig(**values)
    GenerationSettings.from_hf(config, prompt_length=1, vocab=51)
    with pytest.raises(ConfigError, match=next(iter(values))):
        GenerationSettings.from_hf(config, prompt_length=1, vocab=50)


def test_start_token_a_row_is_refused_with_the_alternative():
    config = GenerationConfig(decoder_start_token_id=[1, 2])
    with pytest.raises(ConfigError, match="decoder_input_ids"):
        GenerationSettings.from_hf(config, prompt_length=1)


def test_a_valid_config_resolves_without_warnings(recwarn):
    GenerationSettings.from_hf(GenerationConfig(num_beams=4, length_penalty=2), prompt_length=1)
    assert not recwarn.list
