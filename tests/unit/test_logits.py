"""Logits processors equal the PyTorch processors of transformers, one by one and in a chain."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from transformers import GenerationConfig

from speech_ed_flax.generation import logits
from speech_ed_flax.generation.settings import GenerationSettings

torch = pytest.importorskip("torch")
from transformers import GenerationMixin  # noqa: E402
from transformers.generation import logits_process as upstream  # noqa: E402

ROWS, VOCAB, MAX_LENGTH = 5, 23, 14
LENGTHS = (1, 2, 3, 6, 13)
BAD_WORDS = ((3,), (1, 2), (2, 2), (0, 1, 2), (1, 0, 2), (4, 4, 4, 4), (7,))

PAIRS = {
    "repetition penalty": (
        logits.RepetitionPenalty(1.7),
        upstream.RepetitionPenaltyLogitsProcessor(1.7),
    ),
    "repetition bonus": (
        logits.RepetitionPenalty(0.6),
        upstream.RepetitionPenaltyLogitsProcessor(0.6),
    ),
    "no unigram": (logits.NoRepeatNgram(1), upstream.NoRepeatNGramLogitsProcessor(1)),
    "no bigram": (logits.NoRepeatNgram(2), upstream.NoRepeatNGramLogitsProcessor(2)),
    "no trigram": (logits.NoRepeatNgram(3), upstream.NoRepeatNGramLogitsProcessor(3)),
    "no 14-gram": (logits.NoRepeatNgram(14), upstream.NoRepeatNGramLogitsProcessor(14)),
    "no 20-gram": (logits.NoRepeatNgram(20), upstream.NoRepeatNGramLogitsProcessor(20)),
    "bad words": (
        logits.BadWords(BAD_WORDS),
        upstream.NoBadWordsLogitsProcessor([list(word) for word in BAD_WORDS]),
    ),
    "minimum length": (
        logits.MinimumLength(6, (2, 9)),
        upstream.MinLengthLogitsProcessor(6, [2, 9]),
    ),
    "minimum of new tokens": (
        logits.MinimumLength(6, (2,)),
        upstream.MinNewTokensLengthLogitsProcessor(2, 4, 2),
    ),
    "forced first token": (
        logits.ForcedTokens((5,), 1),
        upstream.ForcedBOSTokenLogitsProcessor(5),
    ),
    "forced last tokens": (
        logits.ForcedTokens((5, 6), MAX_LENGTH - 1),
        upstream.ForcedEOSTokenLogitsProcessor(MAX_LENGTH, [5, 6]),
    ),
    "suppressed tokens": (
        logits.SuppressedTokens((0, 3, 22, 40)),
        upstream.SuppressTokensLogitsProcessor([0, 3, 22, 40]),
    ),
    "suppressed at begin": (
        logits.SuppressedTokensAtBegin((1, 4), 3),
        upstream.SuppressTokensAtBeginLogitsProcessor([1, 4], 3),
    ),
    "temperature": (logits.Temperature(0.7), upstream.TemperatureLogitsWarper(0.7)),
    "top 5": (logits.TopK(5), upstream.TopKLogitsWarper(5)),
    "top 99": (logits.TopK(99), upstream.TopKLogitsWarper(99)),
    "top 0.6": (logits.TopP(0.6, 1), upstream.TopPLogitsWarper(0.6)),
    "top 0.05, three at least": (
        logits.TopP(0.05, 3),
        upstream.TopPLogitsWarper(0.05, min_tokens_to_keep=3),
    ),
}


def history(seed: int, choices: int = 5) -> np.ndarray:
    """Draws token histories from few tokens, so that n-grams and words repeat."""
    return np.random.default_rng(seed).integers(0, choices, (ROWS, MAX_LENGTH)).astype(np.int32)


def random_scores(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (ROWS, VOCAB)).astype(np.float32)


compiled = cache(jax.jit)


def ours(processor, tokens, scores, length: int) -> np.ndarray:
    changed = compiled(processor)(jnp.asarray(tokens), jnp.asarray(scores), jnp.int32(length))
    return np.asarray(changed)


def theirs(processor, tokens, scores, length: int) -> np.ndarray:
    text = torch.tensor(tokens[:, :length], dtype=torch.long)
    return processor(text, torch.tensor(scores)).numpy()


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    np.testing.assert_allclose(got, expected, rtol=3e-7, atol=0)


@pytest.mark.parametrize("name", PAIRS)
def test_processor_equals_upstream(name):
    processor, reference = PAIRS[name]
    for length in LENGTHS:
        for seed in range(4):
            tokens, scores = history(seed), random_scores(seed)
            assert_same(
                ours(processor, tokens, scores, length), theirs(reference, tokens, scores, length)
            )


@pytest.mark.parametrize(
    "processor",
    [logits.RepetitionPenalty(1.7), logits.NoRepeatNgram(2), logits.BadWords(BAD_WORDS)],
    ids=lambda processor: type(processor).__name__,
)
def test_padding_after_the_text_changes_nothing(processor):
    scores = random_scores(0)
    for length in LENGTHS:
        tokens = history(3)
        expected = ours(processor, tokens, scores, length)
        for padding in (-1, 0, 2, VOCAB - 1):
            tokens[:, length:] = padding
            np.testing.assert_array_equal(ours(processor, tokens, scores, length), expected)


def test_prompt_tokens_beyond_the_vocabulary_are_ignored():
    tokens = history(0)
    tokens[:, :2] = VOCAB + 4
    for name in ("repetition penalty", "no unigram", "no bigram"):
        processor, reference = PAIRS[name]
        scores = random_scores(1)
        assert_same(ours(processor, tokens, scores, 6), theirs(reference, tokens, scores, 6))


def test_scores_that_are_already_excluded_stay_excluded():
    scores = random_scores(5)
    scores[:, 4:] = -np.inf
    for name, (processor, reference) in PAIRS.items():
        if not name.startswith("forced"):
            got = ours(processor, history(1), scores, 6)
            assert_same(got, theirs(reference, history(1), scores, 6))
            assert np.isneginf(got[:, 4:]).all()


def test_ties_are_kept_by_top_k_and_cut_by_top_p_as_upstream():
    scores = np.tile(np.array([0, 1, 1, 1, 0, 2, 0, 1], np.float32), (ROWS, 1))
    for processor, reference in (
        (logits.TopK(3), upstream.TopKLogitsWarper(3)),
        (logits.TopP(0.5, 1), upstream.TopPLogitsWarper(0.5)),
        (logits.TopP(0.7, 1), upstream.TopPLogitsWarper(0.7)),
    ):
        assert_same(
            ours(processor, history(0), scores, 3), theirs(reference, history(0), scores, 3)
        )


def test_ranking_only_the_survivors_of_top_k_changes_nothing_in_top_p():
    for seed in range(20):
        scores = ours(logits.TopK(6), history(0), random_scores(seed), 1)
        everything = ours(logits.TopP(0.8, 2), history(0), scores, 1)
        survivors = ours(logits.TopP(0.8, 2, candidates=6), history(0), scores, 1)
        np.testing.assert_array_equal(everything, survivors)


class Builder(GenerationMixin):
    """Gives access to upstream's assembly of processors, without a model."""

    def __init__(self):
        self.config = type("Config", (), {"is_encoder_decoder": True})()


def upstream_chain(config: GenerationConfig, prompt_length: int, custom=()):
    """Assembles upstream's processors from a config prepared as ``generate`` prepares it."""
    ready = GenerationConfig(**config.to_dict())
    ready.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    settings = GenerationSettings.from_hf(config, prompt_length)
    ready.max_length, ready.min_length = settings.max_length, settings.min_length
    ready._eos_token_tensor = torch.tensor(settings.eos_token_id) if settings.eos_token_id else None
    return Builder()._get_logits_processor(
        generation_config=ready,
        input_ids_seq_length=prompt_length,
        logits_processor=list(custom),
        model_kwargs={},
    )


CHAINS = [
    {},
    {"forced_bos_token_id": 4, "forced_eos_token_id": 9, "begin_suppress_tokens": [1, 2]},
    {"min_new_tokens": 3, "no_repeat_ngram_size": 2, "repetition_penalty": 1.4},
    {"min_length": 5, "bad_words_ids": [[9], [1, 2], [3]], "suppress_tokens": [6]},
    {"do_sample": True},
    {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.7},
    {"do_sample": True, "temperature": 1.5, "top_k": 0, "top_p": 0.5, "num_beams": 3},
    {"do_sample": True, "top_k": 1, "num_beams": 3, "eos_token_id": [9, 10, 11]},
    {
        "forced_bos_token_id": 4,
        "forced_eos_token_id": [9, 10],
        "eos_token_id": [9, 10],
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 3,
        "bad_words_ids": [[9], [1, 2]],
        "min_length": 4,
        "suppress_tokens": [6],
        "begin_suppress_tokens": [1, 2],
        "do_sample": True,
        "temperature": 0.8,
        "top_k": 12,
        "top_p": 0.9,
    },
]


@pytest.mark.parametrize("prompt_length", [1, 3])
@pytest.mark.parametrize("index", range(len(CHAINS)))
def test_assembled_chain_equals_upstream(index, prompt_length):
    values = {"eos_token_id": 9, "pad_token_id": 1, "max_length": MAX_LENGTH} | CHAINS[index]
    config = GenerationConfig(**values)
    settings = GenerationSettings.from_hf(config, prompt_length)
    chain = (*logits.processors(settings, prompt_length), *logits.warpers(settings))
    reference = upstream_chain(config, prompt_length)

    def apply(tokens, scores, length):
        for processor in chain:
            scores = processor(tokens, scores, length)
        return scores

    for length in (prompt_length, prompt_length + 1, 6, 13):
        tokens, scores = history(length), random_scores(length)
        assert_same(ours(apply, tokens, scores, length), theirs(reference, tokens, scores, length))


def test_custom_processors_come_after_the_built_in_and_before_the_warpers():
    def custom(tokens, scores, length):
        return scores + length

    settings = GenerationSettings(max_length=8, suppress_tokens=(3,), do_sample=True)
    assert logits.processors(settings, 1, (custom,)) == (logits.SuppressedTokens((3,)), custom)
    assert logits.warpers(settings) == (logits.TopK(50),)


def test_a_single_end_token_is_never_a_bad_word():
    settings = GenerationSettings(max_length=8, eos_token_id=(2,), bad_words_ids=((2,), (2, 3)))
    assert logits.processors(settings, 1) == (logits.BadWords(((2, 3),)),)


def test_default_settings_need_no_processor():
    settings = GenerationSettings(max_length=8, eos_token_id=(2,))
    assert logits.processors(settings, 1) == ()
    assert logits.warpers(settings) == ()
