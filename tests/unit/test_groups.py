"""Diverse beam search equals an oracle in plain Python, written after the paper and transformers 4.

The oracle keeps lists and sorts them; it shares no code with the search but the model, which is the
table of ``table_model``.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from table_model import BATCH, VOCAB, crop, next_state, random_prompt, searcher, table

from speech_ed_flax.generation.settings import GenerationSettings


def log_probs(logits: np.ndarray, tokens: list[int]) -> np.ndarray:
    """Returns the log-probabilities of the token after a text, in float32 as any model gives."""
    state = 0
    for position, token in enumerate(tokens):
        state = next_state(state, token, position)
    row = logits[state].astype(np.float64)
    return (row - np.log(np.exp(row).sum())).astype(np.float32)


class Group:
    """A group in one utterance: its running hypotheses, and ``(score, text)`` of the ended."""

    def __init__(self, prompt: list[int], settings: GenerationSettings):
        self.size = settings.num_beams // settings.num_beam_groups
        self.running = [(0.0, prompt)] + [(-1e9, prompt)] * (self.size - 1)
        self.ended: list[tuple[float, list[int]]] = []
        self.closed = False
        self.settings, self.prompt = settings, len(prompt)

    def divided(self, score: float, length: int) -> float:
        return score / (length - self.prompt) ** self.settings.length_penalty

    def end(self, score: float, text: list[int], length: int) -> None:
        self.ended.append((self.divided(score, length), text))
        self.ended = sorted(self.ended, key=lambda pair: -pair[0])[: self.size]

    def step(self, logits: np.ndarray, avoided: list[int]) -> list[int]:
        """Takes a turn and returns the tokens that later groups avoid."""
        settings, length = self.settings, len(self.running[0][1]) + 1
        if self.closed:
            self.running = [(score, [*text, 0]) for score, text in self.running]
            return [settings.row_fill] * self.size
        proposals = []
        for score, text in self.running:
            scores = log_probs(logits, text)
            scores = scores - settings.diversity_penalty * np.bincount(avoided, minlength=VOCAB)
            proposals += [(score + s, text, token) for token, s in enumerate(scores)]
        proposals.sort(key=lambda proposal: -proposal[0])
        ends = settings.eos_token_id
        self.running = []
        for rank, (score, text, token) in enumerate(proposals):
            if token not in ends and len(self.running) < self.size:
                self.running.append((score, [*text, token]))
            elif token in ends and rank < self.size:
                self.end(score, [*text, ends[0]], length)
        self.closed = self.is_closed(proposals[0][0], length)
        return [text[-1] for _, text in self.running]

    def is_closed(self, best: float, length: int) -> bool:
        if len(self.ended) < self.size:
            return False
        if self.settings.early_stopping is True:
            return True
        late = self.settings.early_stopping == "never" and self.settings.length_penalty > 0
        hoped = self.divided(best, self.settings.max_length if late else length)
        return self.ended[-1][0] >= hoped


def oracle(logits, prompt, settings) -> list[list[tuple[float, list[int]]]]:
    """Returns the ranked hypotheses of every utterance of a batch."""
    batch = [
        [Group(list(row), settings) for _ in range(settings.num_beam_groups)]
        for row in prompt.tolist()
    ]
    for _ in range(prompt.shape[1], settings.max_length):
        for groups in batch:
            avoided: list[int] = []
            for group in groups:
                avoided += group.step(logits, avoided)
        if all(group.closed for groups in batch for group in groups):
            break
    for groups in batch:
        for group in groups:
            for score, text in [] if group.closed else group.running:
                group.end(score, text, len(text))
    return [
        sorted((pair for group in groups for pair in group.ended), key=lambda pair: -pair[0])
        for groups in batch
    ]


GRID = [
    # beams, groups, end tokens, length penalty, early stopping, diversity penalty
    (4, 2, (2,), 1.0, False, 0.5),
    (4, 2, (2, 3), 1.0, True, 1.0),
    (6, 3, (2, 3), 0.0, "never", 2.0),
    (6, 3, (2,), 2.0, "never", 0.3),
    (6, 2, (2, 3), -1.0, False, 5.0),
    (3, 3, (2, 3), 1.0, False, 1.5),
    (4, 4, (), 1.0, True, 10.0),
]


@pytest.mark.parametrize("prompt_length", [1, 4])
@pytest.mark.parametrize("case", GRID, ids=str)
def test_groups_find_what_the_oracle_finds(case, prompt_length):
    beams, groups, ends, penalty, early, diversity = case
    settings = GenerationSettings(
        max_length=prompt_length + 9,
        num_beams=beams,
        num_beam_groups=groups,
        num_return_sequences=beams - 1,
        eos_token_id=ends,
        pad_token_id=1,
        length_penalty=penalty,
        early_stopping=early,
        diversity_penalty=diversity,
    )
    run = searcher(settings, prompt_length)
    for seed in range(4):
        logits, prompt = table(seed), random_prompt(seed, prompt_length)
        found = run(jnp.asarray(logits), jnp.asarray(prompt), None)
        ranked = oracle(logits, prompt, settings)
        rows = [pair for utterance in ranked for pair in utterance[: beams - 1]]
        assert crop(found).shape == (BATCH * (beams - 1), max(len(text) for _, text in rows))
        for row, (score, text) in enumerate(rows):
            assert found.tokens[row, : found.lengths[row]].tolist() == text, (seed, row)
            assert (found.tokens[row, found.lengths[row] :] == 1).all()
            np.testing.assert_allclose(found.scores[row], score, rtol=1e-5)


def test_a_huge_penalty_makes_first_tokens_of_groups_distinct():
    settings = GenerationSettings(
        max_length=2,
        num_beams=6,
        num_beam_groups=6,
        num_return_sequences=6,
        diversity_penalty=1e3,
    )
    found = searcher(settings, 1)(jnp.asarray(table(0)), jnp.asarray(random_prompt(0, 1)), None)
    firsts = np.asarray(found.tokens[:, 1]).reshape(BATCH, 6)
    assert all(len(set(row)) == 6 for row in firsts.tolist())
