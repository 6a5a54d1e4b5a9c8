"""What a search records besides the tokens is what PyTorch returns, and nothing is if not asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from table_model import (
    VOCAB,
    TableModel,
    crop,
    random_prompt,
    searcher,
    start_cache,
    table,
    table_step,
    torch,
)
from transformers import GenerationConfig

from speech_ed_flax.generation.generate import Generated
from speech_ed_flax.generation.output import GenerationOutput
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.search import search_of
from speech_ed_flax.generation.settings import GenerationSettings

MODES = {
    "greedy": {"repetition_penalty": 1.3},
    "beams": {"num_beams": 3, "num_return_sequences": 2, "repetition_penalty": 1.3},
    "beams, forced ends": {"num_beams": 4, "forced_bos_token_id": 7, "forced_eos_token_id": 2},
    "beams that stop early": {"num_beams": 3, "num_return_sequences": 3, "early_stopping": True},
}


def both(mode: str, prompt_length: int, seed: int = 0):
    """Returns the output of PyTorch's search, with what it recorded, and ours."""
    asked = dict.fromkeys(("return_dict_in_generate", "output_scores", "output_logits"), True)
    ends = {"pad_token_id": 1, "eos_token_id": [2, 3], "max_new_tokens": 9}
    config = GenerationConfig(**asked, **ends, **MODES[mode])
    settings = GenerationSettings.from_hf(config, prompt_length, VOCAB)
    logits, prompt = table(seed), random_prompt(seed, prompt_length)
    model = TableModel(logits)
    theirs = model.generate(
        torch.tensor(prompt, dtype=torch.long),
        generation_config=config,
        use_cache=False,
    )
    indices = theirs.beam_indices if settings.num_beams > 1 else None
    chances = model.compute_transition_scores(
        theirs.sequences, theirs.scores, indices, normalize_logits=indices is None
    )
    found = searcher(settings, prompt_length, (), True)(
        jnp.asarray(logits), jnp.asarray(prompt), None
    )
    return theirs, chances, GenerationOutput.of(Generated(found, None), prompt_length)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prompt_length", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_scores_and_logits_of_every_step_are_those_of_pytorch(mode, prompt_length):
    theirs, _, ours = both(mode, prompt_length)
    np.testing.assert_array_equal(ours.sequences, theirs.sequences.numpy())
    assert len(ours.scores) == len(theirs.scores)
    assert len(ours.logits) == len(theirs.logits)
    for found, expected in zip(ours.scores, theirs.scores, strict=True):
        assert_close(found, expected)
    for found, expected in zip(ours.logits, theirs.logits, strict=True):
        assert_close(found, expected)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "greedy"])
def test_beam_indices_and_scores_of_sequences_are_those_of_pytorch(mode, seed):
    theirs, _, ours = both(mode, 3, seed)
    np.testing.assert_array_equal(ours.beam_indices, theirs.beam_indices.numpy())
    assert_close(ours.sequences_scores, theirs.sequences_scores)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("mode", MODES)
def test_log_probabilities_of_tokens_are_pytorchs_transition_scores(mode, seed):
    _, chances, ours = both(mode, 1, seed)
    if mode == "greedy":  # where PyTorch scores the padding too
        ends = np.isin(ours.sequences[:, 1:], (2, 3))
        behind = np.cumsum(ends, axis=1) - ends > 0
        chances = chances.masked_fill(torch.tensor(behind), 0.0)
        lengths = 1 + (~behind).sum(axis=1)
    else:
        lengths = 1 + (ours.beam_indices >= 0).sum(axis=1)
    assert_close(ours.token_log_probs, chances)
    expected = np.exp(ours.token_log_probs.sum(axis=1) / (lengths - 1))
    np.testing.assert_allclose(ours.confidence, expected, rtol=1e-5)


def test_log_probabilities_of_groups_add_up_to_their_scores_without_the_penalty():
    settings = GenerationSettings(
        max_length=10,
        num_beams=4,
        num_beam_groups=2,
        num_return_sequences=4,
        diversity_penalty=0.7,
        eos_token_id=(2,),
    )
    run = searcher(settings, 1, (), True)
    found = run(jnp.asarray(table(0)), jnp.asarray(random_prompt(0, 1)), None)
    generated = np.asarray(found.lengths) - 1
    np.testing.assert_allclose(found.log_probs.sum(axis=1) / generated, found.scores, rtol=1e-4)
    rows = np.arange(len(generated))
    groups = np.asarray(found.parents) % 4 // 2
    known = np.asarray(found.parents) >= 0
    assert (known.sum(axis=1) == generated).all()
    assert all(len(set(groups[row][known[row]])) == 1 for row in rows)


def test_sampled_tokens_have_the_log_probability_of_the_distribution_they_were_drawn_from():
    settings = GenerationSettings(
        max_length=6, do_sample=True, top_k=4, temperature=0.7, output_scores=True
    )
    run = searcher(settings, 1, (), True)
    found = run(jnp.asarray(table(0)), jnp.asarray(random_prompt(0, 1)), jax.random.key(3))
    ours = GenerationOutput.of(Generated(found, None), 1)
    for step, scores in enumerate(ours.scores):
        assert (np.isfinite(scores).sum(axis=1) == 4).all()
        expected = jax.nn.log_softmax(scores)[np.arange(3), ours.sequences[:, 1 + step]]
        np.testing.assert_allclose(ours.token_log_probs[:, step], expected, rtol=1e-6)


@pytest.mark.parametrize("beams", [1, 4])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_state_that_records_nothing_has_no_room_for_it(beams, groups):
    diversity = {"num_beam_groups": groups, "diversity_penalty": 1.0} if groups > 1 else {}
    settings = GenerationSettings(max_length=9, num_beams=max(beams, groups), **diversity)
    plan = Plan.of(settings, 1)
    limits = Limits.of(settings, 1, plan)
    prompt = jnp.asarray(random_prompt(0, 1))
    step = table_step(jnp.asarray(table(0)))
    state = search_of(plan).start(step, start_cache(3 * plan.copies), prompt, limits)
    assert not [leaf.shape for leaf in jax.tree.leaves(state) if VOCAB in leaf.shape]
    assert not [leaf.shape for leaf in jax.tree.leaves(state) if leaf.shape[-1:] == (64,)]
    assert crop(search_of(plan).finish(state, limits)).shape[1] == 1
