"""Ways to run a logits processor and its PyTorch counterpart on the same random input."""

import jax
import jax.numpy as jnp
import numpy as np
import torch

ROWS, VOCAB, CAPACITY = 6, 23, 14
LENGTHS = (1, 2, 3, 6, 13)


def history(seed: int, choices: int = 5, rows: int = ROWS) -> np.ndarray:
    """Draws token histories from few tokens, so that n-grams and words repeat."""
    return np.random.default_rng(seed).integers(0, choices, (rows, CAPACITY)).astype(np.int32)


def random_scores(seed: int, rows: int = ROWS, vocab: int = VOCAB) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (rows, vocab)).astype(np.float32)


@jax.jit
def _compiled(chain, tokens, scores, length):
    for processor in chain:
        scores = processor(tokens, scores, length)
    return scores


def ours(processor, tokens, scores, length: int) -> np.ndarray:
    """Runs a processor, or a tuple of them in order, as an argument of a compiled function."""
    chain = processor if isinstance(processor, tuple) else (processor,)
    return np.asarray(_compiled(chain, jnp.asarray(tokens), jnp.asarray(scores), jnp.int32(length)))


def theirs(processor, tokens, scores, length: int) -> np.ndarray:
    text = torch.tensor(tokens[:, :length], dtype=torch.long)
    return processor(text, torch.tensor(scores)).numpy()


def assert_same(got: np.ndarray, expected: np.ndarray, rtol: float = 3e-7, atol=0.0) -> None:
    np.testing.assert_array_equal(np.isneginf(got), np.isneginf(expected))
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def assert_equals_upstream(processor, reference, rtol: float = 3e-7) -> None:
    """Compares on histories of several lengths, and on scores of which most are excluded."""
    for length in LENGTHS:
        for seed in range(4):
            tokens, scores = history(seed), random_scores(seed)
            if seed == 3:
                scores[:, 4:] = -np.inf
            assert_same(
                ours(processor, tokens, scores, length),
                theirs(reference, tokens, scores, length),
                rtol,
            )
