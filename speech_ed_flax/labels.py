"""Labels: what the decoder reads to predict them, and the loss."""

import jax.numpy as jnp
import optax

from speech_ed_flax.types import Array, Float, Int

IGNORED = -100
"""The label of a position that does not count."""


def shift_tokens_right(
    labels: Int[Array, "batch target"], pad_token_id: int, decoder_start_token_id: int
) -> Int[Array, "batch target"]:
    """Returns the decoder's input for ``labels``: the start token, then all labels but the last.

    Ignored labels are read as padding. This is upstream's generic shift, for mBART decoders too.
    """
    start = jnp.full((labels.shape[0], 1), decoder_start_token_id, labels.dtype)
    shifted = jnp.concatenate([start, labels[:, :-1]], axis=1)
    return jnp.where(shifted == IGNORED, pad_token_id, shifted)


def label_losses(
    logits: Float[Array, "batch target vocab"], labels: Int[Array, "batch target"]
) -> Float[Array, "batch target"]:
    """Returns the cross-entropy of each position; of one that does not count, any number."""
    targets = jnp.where(labels == IGNORED, 0, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits.astype(jnp.float32), targets)


def cross_entropy(
    logits: Float[Array, "batch target vocab"], labels: Int[Array, "batch target"]
) -> Float[Array, ""]:
    """Returns the mean cross-entropy over the labels that count; 0 if none does (upstream: nan)."""
    counted = labels != IGNORED
    losses = label_losses(logits, labels)
    return jnp.sum(losses, where=counted) / jnp.maximum(counted.sum(), 1)
