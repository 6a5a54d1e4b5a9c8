"""A language model that is a table, in PyTorch and in JAX, for tests of the search.

The whole history of a row is hashed into one of a few hundred states, and each state has its own
random logits. PyTorch hashes the full history anew at each step while the JAX step carries the hash
in its cache, so a cache that is reordered wrongly shows.
"""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from speech_ed_flax.generation.logits import processors, warpers
from speech_ed_flax.generation.plan import Limits, Plan
from speech_ed_flax.generation.search import search
from speech_ed_flax.generation.settings import GenerationSettings
from speech_ed_flax.generation.steps import Rules

torch = pytest.importorskip("torch")
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel  # noqa: E402
from transformers.modeling_outputs import CausalLMOutput  # noqa: E402

VOCAB, STATES, BATCH = 37, 499, 3


def next_state(state, token, position):
    """Hashes one more token; the same integers in PyTorch and JAX."""
    return (state * 31 + token * 7 + position * 3 + 1) % STATES


def table(seed: int) -> np.ndarray:
    """Draws logits [states, vocab] in which the end tokens 2 and 3 are likely but not certain."""
    drawn = np.random.default_rng(seed).normal(0, 2.0, (STATES, VOCAB)).astype(np.float32)
    drawn[:, 2:4] += 1.5
    return drawn


def random_prompt(seed: int, length: int) -> np.ndarray:
    drawn = np.random.default_rng(1000 + seed).integers(4, VOCAB, (BATCH, length))
    return drawn.astype(np.int32)


class TableModel(PreTrainedModel, GenerationMixin):
    """The table as a PyTorch language model without a cache."""

    config_class = PreTrainedConfig
    main_input_name = "input_ids"

    def __init__(self, logits: np.ndarray):
        super().__init__(PreTrainedConfig(vocab_size=VOCAB))
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, input_ids, **_):
        state = torch.zeros_like(input_ids[:, 0])
        for position in range(input_ids.shape[1]):
            state = next_state(state, input_ids[:, position], position)
        return CausalLMOutput(logits=self.logits[state][:, None])


def table_step(logits):
    """Builds the same model as a step whose cache holds the hash of each row's history."""

    def step(tokens, position, cache):
        state = cache["state"]
        for offset in range(tokens.shape[1]):
            state = next_state(state, tokens[:, offset], position + offset)
        return logits[state], {"state": state}

    return step


def start_cache(rows: int):
    return {"state": jnp.zeros(rows, jnp.int32)}


@cache
def searcher(settings: GenerationSettings, prompt_length: int, custom=(), log_probs=False):
    """Builds the jitted search: ``(logits table, prompt, key) -> Found``."""
    plan = Plan.of(settings, prompt_length, log_probs=log_probs)
    limits = Limits.of(settings, prompt_length, plan)
    chain = (*processors(settings, prompt_length, VOCAB, custom), *warpers(settings))

    @jax.jit
    def run(logits, prompt, key):
        cache = start_cache(prompt.shape[0] * plan.copies)
        return search(table_step(logits), cache, prompt, plan, Rules(limits, chain, key))

    return run


def crop(found) -> np.ndarray:
    """Cuts sequences to the longest one."""
    return np.asarray(found.tokens)[:, : int(found.lengths.max())]
