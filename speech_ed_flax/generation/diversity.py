"""Diversity between groups of beams: a later group avoids what earlier groups chose."""

import jax
import jax.numpy as jnp

from speech_ed_flax.generation.processor import Real, Scores
from speech_ed_flax.types import Array, Int


def diversify(scores: Scores, chosen: Int[Array, "batch earlier"], penalty: Real) -> Scores:
    """Subtracts ``penalty`` from a token's score for each earlier beam that chose it in this step.

    Matches ``HammingDiversityLogitsProcessor`` of transformers 4.57 (arXiv:1610.02424), whose
    place is before every processor that does not merely add to the scores.

    Args:
        scores: of one group, batch x its beams as rows, beams innermost.
        chosen: what the beams of all earlier groups chose at this position; a token beyond the
            vocabulary counts for nothing.
        penalty: the diversity penalty.
    """
    batch, vocab = chosen.shape[0], scores.shape[-1]
    count = jax.vmap(lambda tokens: jnp.zeros(vocab).at[tokens].add(1.0, mode="drop"))(chosen)
    return scores - jnp.repeat(penalty * count, scores.shape[0] // batch, axis=0)
