"""The chain of processors equals the one that transformers assembles, and traces only once."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import GenerationConfig

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.logits import processors, warpers
from speech_ed_flax.generation.processor import Custom
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.warpers import TopK

torch = pytest.importorskip("torch")
from processing import (  # noqa: E402
    CAPACITY,
    ROWS,
    VOCAB,
    assert_same,
    history,
    ours,
    random_scores,
    theirs,
)
from transformers import GenerationMixin  # noqa: E402

READ = np.random.default_rng(9).integers(0, 8, (2, 7)).astype(np.int32)


class Builder(GenerationMixin):
    """Gives access to upstream's assembly of processors, without a model."""

    def __init__(self):
        self.config = type("Config", (), {"is_encoder_decoder": True})()


def upstream_chain(config: GenerationConfig, prompt_length: int, allows=None):
    """Assembles upstream's processors from a config prepared as ``generate`` prepares it."""
    ready = GenerationConfig(**config.to_dict())
    ready.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    settings = GenerationSettings.from_hf(config, prompt_length)
    ready.max_length, ready.min_length = settings.max_length, settings.min_length
    ready._eos_token_tensor = torch.tensor(settings.eos_token_id) if settings.eos_token_id else None
    return Builder()._get_logits_processor(
        generation_config=ready,
        input_ids_seq_length=prompt_length,
        encoder_input_ids=torch.tensor(READ, dtype=torch.long),
        prefix_allowed_tokens_fn=allows,
        logits_processor=[],
        model_kwargs={},
    )


def allows(utterance: int, text) -> list[int]:
    return [token for token in range(VOCAB) if (token + len(text) + utterance) % 4]


CHAINS = [
    {},
    {"forced_bos_token_id": 4, "forced_eos_token_id": 9, "begin_suppress_tokens": [1, 2]},
    {"min_new_tokens": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.4},
    {"min_length": 5, "bad_words_ids": [[9], [1, 2], [3]], "suppress_tokens": [6]},
    {"sequence_bias": [[[1, 2], -2.0], [[3], 1.5]], "encoder_repetition_penalty": 1.3},
    {"encoder_no_repeat_ngram_size": 2, "remove_invalid_values": True, "suppress_tokens": [6]},
    {"exponential_decay_length_penalty": (2, 1.2), "renormalize_logits": True},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.7},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "top_p": 0.5, "num_beams": 3},
    {"do_sample": True, "top_k": 1, "num_beams": 3, "eos_token_id": [9, 10, 11]},
    {"do_sample": True, "top_k": 0, "top_h": 0.5, "min_p": 0.05, "renormalize_logits": True},
    {"do_sample": True, "top_k": 9, "typical_p": 0.7, "epsilon_cutoff": 0.02, "num_beams": 2},
    {"do_sample": True, "top_k": 0, "top_p": 0.9, "typical_p": 0.8, "eta_cutoff": 0.1},
    {
        "sequence_bias": [[[1, 2], -2.0], [[3], 1.5], [[0, 4], 0.5]],
        "encoder_repetition_penalty": 0.8,
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 3,
        "encoder_no_repeat_ngram_size": 2,
        "bad_words_ids": [[9], [1, 2]],
        "min_length": 4,
        "forced_bos_token_id": 4,
        "forced_eos_token_id": [9, 10],
        "eos_token_id": [9, 10],
        "remove_invalid_values": True,
        "exponential_decay_length_penalty": (1, 1.1),
        "suppress_tokens": [6],
        "begin_suppress_tokens": [1, 2],
        "do_sample": True,
        "num_beams": 3,
        "temperature": 0.8,
        "top_h": 0.95,
        "top_k": 12,
        "top_p": 0.95,
        "min_p": 0.01,
        "typical_p": 0.95,
        "epsilon_cutoff": 1e-3,
        "eta_cutoff": 1e-3,
        "renormalize_logits": True,
    },
]


@pytest.mark.parametrize("prompt_length", [1, 3])
@pytest.mark.parametrize("index", range(len(CHAINS)))
def test_assembled_chain_equals_upstream(index, prompt_length):
    values = {"eos_token_id": 9, "pad_token_id": 1, "max_length": CAPACITY} | CHAINS[index]
    config = GenerationConfig(**values)
    settings = GenerationSettings.from_hf(config, prompt_length)
    function = allows if index % 2 == 0 else None
    chain = processors(settings, prompt_length, VOCAB, (), READ, function)
    chain += warpers(settings)
    reference = upstream_chain(config, prompt_length, function)
    assert len(reference) - len(chain) in (0, 1)  # upstream has two minimum lengths
    for length in (prompt_length, prompt_length + 1, 6, 13):
        tokens, scores = history(length), random_scores(length)
        got = ours(chain, tokens, scores, length)
        expected = theirs(reference, tokens, scores, length)
        assert_same(got, expected, rtol=3e-6, atol=5e-7)


EVERYTHING = GenerationSettings.from_hf(
    GenerationConfig(**({"pad_token_id": 1, "max_length": CAPACITY} | CHAINS[-1])), 1
)
CHANGES = {
    "max_length": 12,
    "min_length": 6,
    "min_new_tokens": 7,
    "length_penalty": 2.0,
    "temperature": 1.7,
    "top_p": 0.5,
    "min_p": 0.3,
    "top_h": 0.6,
    "typical_p": 0.4,
    "epsilon_cutoff": 0.02,
    "eta_cutoff": 0.03,
    "repetition_penalty": 2.0,
    "encoder_repetition_penalty": 2.0,
    "sequence_bias": (((4, 2), 1.0), ((7,), -1.0), ((5,), 2.0), ((1, 1), 3.0)),
    "bad_words_ids": ((4, 4), (5,)),
    "suppress_tokens": (1, 5, 7),
    "begin_suppress_tokens": (8,),
    "forced_bos_token_id": 7,
    "forced_eos_token_id": (3,),
    "eos_token_id": (9, 12),
    "exponential_decay_length_penalty": (0, 1.5),
}


def test_changing_a_traced_setting_does_not_trace_again():
    traces = 0

    @jax.jit
    def apply(chain, tokens, scores, length):
        nonlocal traces
        traces += 1
        for processor in chain:
            scores = processor(tokens, scores, length)
        return scores

    inputs = jnp.asarray(history(0)), jnp.asarray(random_scores(0)), jnp.int32(4)
    for change in ({}, *({name: value} for name, value in CHANGES.items())):
        settings = dataclasses.replace(EVERYTHING, **change)
        apply((*processors(settings, 1, VOCAB, (), READ), *warpers(settings)), *inputs)
    assert traces == 1
    settings = dataclasses.replace(EVERYTHING, top_k=5)
    apply((*processors(settings, 1, VOCAB, (), READ), *warpers(settings)), *inputs)
    assert traces == 2, "a number that decides shapes traces again, or nothing was counted"


def test_custom_processors_come_after_the_built_in_and_before_the_warpers():
    def custom(tokens, scores, length):
        return scores + length

    settings = GenerationSettings(max_length=8, suppress_tokens=(3,), do_sample=True)
    built_in, wrapped = processors(settings, 1, VOCAB, (custom,))
    assert type(built_in).__name__ == "SuppressedTokens"
    assert wrapped == Custom(custom)
    assert warpers(settings) == (TopK(50),)
    scores = random_scores(0)
    np.testing.assert_array_equal(ours(wrapped, history(0), scores, 3), scores + 3)


def test_a_custom_processor_that_is_a_pytree_stays_one():
    settings = GenerationSettings(max_length=8)
    (chosen,) = processors(settings, 1, VOCAB, (TopK(3),))
    assert chosen.processor == TopK(3)
    assert not jax.tree_util.all_leaves([chosen])


def test_a_custom_processor_that_cannot_be_compiled_in_is_refused():
    @dataclasses.dataclass
    class Unhashable:
        def __call__(self, tokens, scores, length):
            return scores

    with pytest.raises(ConfigError, match="not hashable"):
        processors(GenerationSettings(max_length=8), 1, VOCAB, (Unhashable(),))


@pytest.mark.parametrize("read", [None, READ[0], -READ - 1], ids=["none", "flat", "negative"])
@pytest.mark.parametrize(
    "setting", [{"encoder_repetition_penalty": 2.0}, {"encoder_no_repeat_ngram_size": 2}], ids=str
)
def test_settings_about_what_the_encoder_read_need_its_tokens(setting, read):
    settings = GenerationSettings(max_length=8, **setting)
    with pytest.raises(ConfigError, match=next(iter(setting))):
        processors(settings, 1, VOCAB, (), read)


def test_a_single_end_token_is_never_a_bad_word():
    settings = GenerationSettings(max_length=8, eos_token_id=(2,), bad_words_ids=((2,), (3,)))
    chain = processors(settings, 1, VOCAB)
    got = ours(chain, history(0), np.zeros((ROWS, VOCAB), np.float32), 3)
    assert np.isneginf(got[:, 3]).all()
    assert np.isneginf(got).sum() == ROWS


def test_a_table_of_allowed_sequences_begins_after_a_forced_first_token():
    settings = GenerationSettings(max_length=8, eos_token_id=(2,), forced_bos_token_id=4)
    chain = processors(settings, 1, VOCAB, allowed=[(5, 6)])
    tokens = np.array([[0, 4, 5, 6, 0]], np.int32)
    for length, expected in ((1, 4), (2, 5), (3, 6), (4, 2)):
        got = ours(chain, tokens, random_scores(0, 1), length)
        assert np.flatnonzero(np.isfinite(got)).tolist() == [expected]


def test_default_settings_need_no_processor():
    settings = GenerationSettings(max_length=8, eos_token_id=(2,))
    assert processors(settings, 1, VOCAB) == ()
    assert warpers(settings) == ()
