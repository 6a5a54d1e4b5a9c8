"""What a generation returns to its caller: arrays on the host, cut to what was generated."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from speech_ed_flax.generation.generate import Generated


@flax.struct.dataclass
class GenerationOutput:
    """Generated tokens, and what was asked for besides; names as in transformers where it has them.

    Rows are sequences, ``num_return_sequences`` for each utterance; steps count generated tokens.

    Attributes:
        sequences: ``[rows, length]``, prompt included.
        sequences_scores: of beams ``[rows]``, with the length penalty.
        scores: for each step, of every token after the processors ``[searched rows, vocab]``.
        logits: for each step, of every token before them ``[searched rows, vocab]``.
        beam_indices: the searched row that each token continued ``[rows, steps]``; -1 behind the
            end.
        token_log_probs: of each token after the processors ``[rows, steps]``; 0 behind the end.
        confidence: geometric mean of the tokens' probabilities ``[rows]``.
        cross_attentions: for each layer ``[rows, heads, length - 1, source]``; at ``i`` stands what
            was heard while token ``i + 1`` was chosen.
    """

    sequences: np.ndarray
    sequences_scores: np.ndarray | None = None
    scores: tuple[np.ndarray, ...] | None = None
    logits: tuple[np.ndarray, ...] | None = None
    beam_indices: np.ndarray | None = None
    token_log_probs: np.ndarray | None = None
    confidence: np.ndarray | None = None
    cross_attentions: tuple[np.ndarray, ...] | None = None

    @classmethod
    def of(cls, generated: Generated, prompt_length: int) -> "GenerationOutput":
        """Brings to the host what was found, and cuts it."""
        found, attentions = _whole(generated)
        lengths = np.asarray(found.lengths)
        longest, steps = int(lengths.max()), int(found.length) - prompt_length
        generated_tokens = slice(None, longest - prompt_length)
        log_probs = _host(found.log_probs, (slice(None), generated_tokens))
        if attentions is not None:
            heard = (slice(None), slice(None), slice(None, longest - 1))
            attentions = tuple(_host(layer, heard) for layer in attentions)
        return cls(
            sequences=np.asarray(found.tokens)[:, :longest],
            sequences_scores=_host(found.scores),
            scores=_per_step(found.trail.scores, steps),
            logits=_per_step(found.trail.logits, steps),
            beam_indices=_host(found.parents, (slice(None), generated_tokens)),
            token_log_probs=log_probs,
            confidence=None
            if log_probs is None
            else confidence(log_probs, lengths - prompt_length),
            cross_attentions=attentions,
        )


def _whole(generated: Generated) -> Generated:
    """Returns what several processes found together to each of them."""
    if jax.process_count() == 1:
        return generated
    return multihost_utils.process_allgather(generated, tiled=True)


def _host(values: Any | None, part: Any = ...) -> Any:
    return None if values is None else np.asarray(values)[part]


def _per_step(values: Any | None, steps: int) -> tuple[np.ndarray, ...] | None:
    return None if values is None else tuple(np.asarray(values[:steps]))


def confidence(log_probs: Any, generated: Any) -> Any:
    """Returns the geometric mean of the tokens' probabilities; of numpy or JAX, as it is given.

    Args:
        log_probs: ``[rows, steps]``, 0 behind the end.
        generated: tokens of each row ``[rows]``.
    """
    library = np if isinstance(log_probs, np.ndarray) else jnp
    return library.exp(log_probs.sum(axis=1) / library.maximum(generated, 1))
