"""Search equals transformers' ``generate`` token for token, and brute force where that can be."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table_model import (
    BATCH,
    VOCAB,
    TableModel,
    crop,
    next_state,
    random_prompt,
    searcher,
    start_cache,
    table,
    table_step,
    torch,
)
from transformers import GenerationConfig

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.search import search
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules


def assert_equals_upstream(config: dict, prompt_length: int = 1, seeds=range(3)):
    """Runs both searches on random tables and prompts; tokens, shapes and scores must agree."""
    config = GenerationConfig(**({"pad_token_id": 1, "max_new_tokens": 9} | config))
    settings = GenerationSettings.from_hf(config, prompt_length, VOCAB)
    run = searcher(settings, prompt_length)
    for seed in seeds:
        logits, prompt = table(seed), random_prompt(seed, prompt_length)
        expected = TableModel(logits).generate(
            torch.tensor(prompt, dtype=torch.long),
            generation_config=config,
            use_cache=False,
            return_dict_in_generate=True,
            output_scores=True,
        )
        found = run(jnp.asarray(logits), jnp.asarray(prompt), jax.random.key(0))
        np.testing.assert_array_equal(crop(found), expected.sequences.numpy(), f"seed {seed}")
        if settings.num_beams > 1:
            scores = np.asarray(found.scores).reshape(-1)
            np.testing.assert_allclose(scores, expected.sequences_scores.numpy(), rtol=1e-5)


def test_tied_end_tokens_forced_last_score_as_upstream_and_the_lower_one_wins():
    config = GenerationConfig(
        num_beams=3, max_new_tokens=4, eos_token_id=[2, 3], forced_eos_token_id=[2, 3]
    )
    settings = GenerationSettings.from_hf(config, prompt_length=1)
    logits, prompt = table(0), random_prompt(0, 1)
    found = searcher(settings, 1)(jnp.asarray(logits), jnp.asarray(prompt), None)
    expected = TableModel(logits).generate(
        torch.tensor(prompt, dtype=torch.long),
        generation_config=config,
        use_cache=False,
        return_dict_in_generate=True,
        output_scores=True,
    )
    np.testing.assert_allclose(found.scores, expected.sequences_scores.numpy(), rtol=1e-5)
    assert found.tokens[:, 4].max() == 2


EOS = {"one": 2, "several": [2, 3], "none": None}
GRID = list(itertools.product((2, 3, 5), (0.0, 1.0, -1.0, 2.0), (True, False, "never"), EOS))


@pytest.mark.parametrize(("beams", "penalty", "early", "eos"), GRID[::7])
def test_beam_search_equals_upstream(beams, penalty, early, eos):
    assert_equals_upstream(
        {
            "num_beams": beams,
            "length_penalty": penalty,
            "early_stopping": early,
            "eos_token_id": EOS[eos],
            "num_return_sequences": beams - 1,
        }
    )


CONSTRAINTS = {
    "minimum length": {"min_length": 6},
    "minimum of new tokens": {"min_new_tokens": 4},
    "forced first token": {"forced_bos_token_id": 7},
    "forced last token": {"forced_eos_token_id": 2, "max_new_tokens": 4},
    "both forced": {"forced_bos_token_id": 7, "forced_eos_token_id": 2, "max_new_tokens": 3},
    "no bigram twice": {"no_repeat_ngram_size": 2, "max_new_tokens": 14},
    "no token twice": {"no_repeat_ngram_size": 1},
    "repetition penalty": {"repetition_penalty": 1.8, "max_new_tokens": 14},
    "bad words": {"bad_words_ids": [[2], [5], [10, 11], [11, 3], [4, 5, 6]]},
    "suppressed": {"suppress_tokens": [3, 9, 30], "begin_suppress_tokens": [2, 10]},
    "pad is zero": {"pad_token_id": 0},
    "no pad": {"pad_token_id": None},
    "one new token": {"max_new_tokens": 1},
    "everything": {
        "min_new_tokens": 2,
        "forced_bos_token_id": 7,
        "forced_eos_token_id": 2,
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.2,
        "bad_words_ids": [[10, 11], [12]],
        "begin_suppress_tokens": [5],
    },
}


@pytest.mark.parametrize("name", CONSTRAINTS)
@pytest.mark.parametrize(("beams", "prompt_length"), [(1, 3), (3, 1), (4, 4)])
def test_constrained_search_equals_upstream(name, beams, prompt_length):
    config = {"num_beams": beams, "eos_token_id": [2, 3]} | CONSTRAINTS[name]
    assert_equals_upstream(config, prompt_length)


@pytest.mark.parametrize("eos", EOS)
@pytest.mark.parametrize("prompt_length", [1, 4])
def test_greedy_search_equals_upstream(eos, prompt_length):
    assert_equals_upstream({"eos_token_id": EOS[eos]}, prompt_length, seeds=range(8))


def enumerate_sequences(logits, start: int, new_tokens: int, end: int):
    """Yields every complete sequence from ``start`` in a first-order chain, with its log-prob."""
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=-1), np.float64)
    alive = [((start,), 0.0)]
    for _ in range(new_tokens):
        longer = [
            ((*tokens, token), score + log_probs[tokens[-1], token])
            for tokens, score in alive
            for token in range(logits.shape[1])
        ]
        yield from (pair for pair in longer if pair[0][-1] == end)
        alive = [pair for pair in longer if pair[0][-1] != end]
    yield from alive


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_wide_beam_search_finds_what_brute_force_finds(penalty):
    chain_logits = jax.random.normal(jax.random.key(4), (4, 4)) * 1.5
    settings = GenerationSettings(
        max_length=5,
        num_beams=81,
        num_return_sequences=6,
        eos_token_id=(0,),
        pad_token_id=1,
        early_stopping="never",
        length_penalty=penalty,
    )
    plan = Plan.of(settings, 1)
    found = jax.jit(
        lambda prompt, limits: search(
            lambda tokens, _, cache: (chain_logits[tokens[:, -1]], cache),
            (),
            prompt,
            plan,
            Rules(limits),
        )
    )(jnp.array([[2], [3]], jnp.int32), Limits.of(settings, 1, plan))
    for row, start in enumerate((2, 3)):
        ranked = sorted(
            (
                (score / (len(tokens) - 1) ** penalty, tokens)
                for tokens, score in enumerate_sequences(chain_logits, start, 4, end=0)
            ),
            reverse=True,
        )[:6]
        for place, (score, tokens) in enumerate(ranked):
            index = 6 * row + place
            assert found.lengths[index] == len(tokens)
            assert tuple(found.tokens[index, : len(tokens)].tolist()) == tokens
            np.testing.assert_allclose(found.scores[index], score, rtol=1e-5)


def random_tokens(settings: GenerationSettings, seed: int, rows: int = 400) -> np.ndarray:
    """Samples many rows that share one prompt; returns generated tokens [rows * sequences, new]."""
    prompt = jnp.full((rows, 1), 5, jnp.int32)
    found = searcher(settings, 1)(jnp.asarray(table(0)), prompt, jax.random.key(seed))
    return np.asarray(found.tokens)[:, 1 : settings.max_length]


def first_probabilities() -> np.ndarray:
    """Returns the probabilities of the first token that :func:`random_tokens` generates."""
    state = next_state(0, 5, 0)
    return np.asarray(jax.nn.softmax(table(0)[state].astype(np.float64)))


@pytest.mark.parametrize("beams", [1, 2])
def test_sampled_tokens_stay_within_top_k(beams):
    settings = GenerationSettings(max_length=2, do_sample=True, top_k=4, num_beams=beams)
    best = np.argsort(first_probabilities())[-4:]
    drawn = random_tokens(settings, 0)
    assert set(drawn[:, 0]) == set(best) if beams == 1 else set(drawn[:, 0]) <= set(best)


def test_sampled_tokens_stay_within_top_p():
    settings = GenerationSettings(max_length=2, do_sample=True, top_k=0, top_p=0.6)
    order = np.argsort(first_probabilities())[::-1]
    reach = np.cumsum(first_probabilities()[order])
    nucleus = order[: int(np.searchsorted(reach, 0.6)) + 1]
    assert set(random_tokens(settings, 1)[:, 0]) == set(nucleus)


def test_sampled_frequencies_follow_the_probabilities():
    settings = GenerationSettings(max_length=2, do_sample=True, top_k=0)
    drawn = random_tokens(settings, 2, rows=20_000)[:, 0]
    frequencies = np.bincount(drawn, minlength=VOCAB) / len(drawn)
    np.testing.assert_allclose(frequencies, first_probabilities(), atol=0.015)


def test_sampled_beams_draw_the_best_pair_without_replacement():
    settings = GenerationSettings(
        max_length=2, do_sample=True, top_k=0, num_beams=2, num_return_sequences=2
    )
    pairs = random_tokens(settings, 3, rows=20_000).reshape(-1, 2)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    chance = first_probabilities()
    # A token is in the drawn pair if it comes first, or second after any other token.
    expected = chance * (1 + (chance / (1 - chance)).sum() - chance / (1 - chance))
    frequencies = np.bincount(pairs.reshape(-1), minlength=VOCAB) / len(pairs)
    np.testing.assert_allclose(frequencies, expected, atol=0.015)


def test_rows_of_one_batch_are_drawn_independently():
    settings = GenerationSettings(max_length=8, do_sample=True, top_k=0)
    assert len({tuple(row) for row in random_tokens(settings, 4, rows=50)}) > 40


@pytest.mark.parametrize("beams", [1, 3])
def test_the_same_key_draws_the_same_tokens_and_another_key_others(beams):
    settings = GenerationSettings(max_length=8, do_sample=True, num_beams=beams)
    first, again, other = (random_tokens(settings, seed, rows=20) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_sampling_at_vanishing_temperature_is_greedy():
    common = {"max_length": 10, "eos_token_id": (2,), "pad_token_id": 1}
    cold = GenerationSettings(do_sample=True, temperature=1e-4, **common)
    greedy = GenerationSettings(**common)
    logits, prompt, key = jnp.asarray(table(1)), jnp.asarray(random_prompt(1, 2)), jax.random.key(0)
    drawn, best = (searcher(settings, 2)(logits, prompt, key) for settings in (cold, greedy))
    np.testing.assert_array_equal(drawn.tokens, best.tokens)
    np.testing.assert_array_equal(drawn.lengths, best.lengths)


def test_custom_processors_see_the_history_of_their_own_row():
    def prefer_successor(tokens, scores, length):
        last = jax.lax.dynamic_index_in_dim(tokens, length - 1, axis=1, keepdims=False)
        return scores.at[jnp.arange(len(last)), (last + 1) % VOCAB].set(1e3)

    settings = GenerationSettings(max_length=6, num_beams=2)
    found = searcher(settings, 1, (prefer_successor,))(
        jnp.asarray(table(0)), jnp.asarray(random_prompt(0, 1)), None
    )
    steps = np.diff(crop(found), axis=1) % VOCAB
    np.testing.assert_array_equal(steps, 1)


def test_rows_are_padded_after_their_own_end():
    settings = GenerationSettings(max_length=12, eos_token_id=(2,), pad_token_id=1)
    found = searcher(settings, 1)(jnp.asarray(table(3)), jnp.asarray(random_prompt(3, 1)), None)
    assert len(set(found.lengths.tolist())) > 1
    for tokens, length in zip(np.asarray(found.tokens), np.asarray(found.lengths), strict=True):
        assert 2 not in tokens[: length - 1]
        assert length == 12 or tokens[length - 1] == 2
        np.testing.assert_array_equal(tokens[length:], 1)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_batch_finds_what_each_utterance_finds_alone(beams):
    settings = GenerationSettings(
        max_length=12, num_beams=beams, eos_token_id=(2, 3), pad_token_id=1
    )
    run, logits, prompt = searcher(settings, 2), jnp.asarray(table(5)), random_prompt(5, 2)
    together = run(logits, jnp.asarray(prompt), None)
    for row in range(BATCH):
        alone = run(logits, jnp.asarray(prompt[row : row + 1]), None)
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])


CHANGED = {
    "max_length": 30,
    "length_penalty": 0.3,
    "eos_token_id": (5,),
    "pad_token_id": 7,
    "early_stopping": "never",
}


@pytest.mark.parametrize("beams", [1, 3])
def test_other_limits_or_another_prompt_of_the_same_shape_trace_nothing_anew(beams):
    traces, table_of_logits = [], jnp.asarray(table(0))

    def step(tokens, position, cache):
        traces.append(tokens.shape)
        return table_step(table_of_logits)(tokens, position, cache)

    run = jax.jit(search, static_argnames=("step", "plan"))
    settings = GenerationSettings(max_length=6, num_beams=beams, eos_token_id=(2,), pad_token_id=1)
    others = [replace(settings, **{name: value}) for name, value in CHANGED.items()]
    found = []
    for seed, one in enumerate([settings, *others]):
        plan = Plan.of(one, 1)
        prompt = jnp.asarray(random_prompt(seed, 1))
        rules = Rules(Limits.of(one, 1, plan))
        found.append(run(step, start_cache(BATCH * beams), prompt, plan, rules))
        traced = len(traces) if seed == 0 else traced
    assert len(traces) == traced
    assert crop(found[0]).shape[1] <= 6 < crop(found[1]).shape[1]


def test_sequences_have_room_for_a_multiple_of_64_new_tokens_within_the_positions():
    def capacity(prompt_length, new_tokens, positions=None):
        settings = GenerationSettings(max_length=prompt_length + new_tokens)
        return Plan.of(settings, prompt_length, positions).capacity

    assert [capacity(1, n) for n in (1, 64, 65, 128)] == [65, 65, 129, 129]
    assert [capacity(3, 70, positions) for positions in (448, 100, 73)] == [131, 100, 73]
    with pytest.raises(ConfigError, match="positions"):
        capacity(3, 70, 72)


def test_the_whole_prompt_is_given_before_the_loop_and_then_one_token_a_step():
    lengths, settings = [], GenerationSettings(max_length=9, num_beams=2)
    plan = Plan.of(settings, 5)
    rules = Rules(Limits.of(settings, 5, plan))

    def step(tokens, position, cache):
        lengths.append(tokens.shape)
        return table_step(jnp.asarray(table(0)))(tokens, position, cache)

    prompt = jnp.asarray(random_prompt(0, 5))
    jax.eval_shape(lambda: search(step, start_cache(BATCH * 2), prompt, plan, rules))
    assert lengths[0] == (BATCH * 2, 4)
    assert set(lengths[1:]) == {(BATCH * 2, 1)}


@pytest.mark.parametrize("beams", [1, 3])
def test_compiled_search_is_one_loop_without_a_sort(beams):
    settings = GenerationSettings(max_length=6, num_beams=beams, eos_token_id=(2,))
    run = searcher(settings, 1).lower(jnp.asarray(table(0)), jnp.asarray(random_prompt(0, 1)), None)
    program = run.compile().as_text()
    assert program.count(" while(") == 1
    assert " sort(" not in program


@pytest.mark.parametrize("beams", [1, 2])
def test_sampling_without_a_key_is_refused(beams):
    settings = GenerationSettings(max_length=6, do_sample=True, num_beams=beams)
    with pytest.raises(ConfigError, match="key"):
        searcher(settings, 1)(jnp.asarray(table(0)), jnp.ones((1, 1), jnp.int32), None)


def test_prompt_as_long_as_the_maximum_is_refused():
    with pytest.raises(ConfigError, match="max_length"):
        Plan.of(GenerationSettings(max_length=4), 4)
