"""A guide for cross-attention: text is spoken from its beginning to its end."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.labels import IGNORED
from speech_ed_flax.types import Array, Bool, Float, Int

TOLERANCE = 0.2
"""How far from the diagonal, as a share of the utterance, attention costs little yet."""


def guide_sum(
    heard: Mapping[str, Any],
    mask: Bool[Array, "batch source"] | None,
    labels: Int[Array, "batch target"],
) -> Float[Array, ""]:
    """Returns how far from the diagonal the decoder listens, as a sum over the labels that count.

    The penalty is that of Tachibana et al. (2017), between 0 and 1 for each label: the mean over
    the first half of the heads of every layer. The others may look where they like.

    Args:
        heard: the ``"intermediates"`` of the model.
        mask: which encoder states are real; None if all are.
        labels: -100 does not count.

    Raises:
        ConfigError: if the layers keep no weights.
    """
    layers = heard.get("decoder", {}).get("transformer", {})
    weights = [
        layer["cross_attention"]["weights"][0]
        for layer in layers.values()
        if "cross_attention" in layer
    ]
    if not weights:
        raise ConfigError("guide needs the attention of every layer: use scan=False.")
    far = _distance(labels != IGNORED, weights[0].shape[-1], mask)
    penalties = [
        jnp.einsum("bhts,bts->bht", of[:, : -(-of.shape[1] // 2)], far).mean(1) for of in weights
    ]
    return jnp.sum(sum(penalties) / len(penalties), where=labels != IGNORED)


def _distance(
    counted: Bool[Array, "batch target"], source: int, mask: Bool[Array, "batch source"] | None
) -> Float[Array, "batch target source"]:
    """Returns the penalty of reading each state for each label."""
    states = jnp.full((len(counted), 1), source) if mask is None else mask.sum(-1, keepdims=True)
    labels = jnp.maximum(counted.sum(-1, keepdims=True), 1)
    along_text = (jnp.arange(counted.shape[1]) + 0.5) / labels
    along_speech = (jnp.arange(source) + 0.5) / jnp.maximum(states, 1)
    apart = along_text[:, :, None] - along_speech[:, None, :]
    return 1 - jnp.exp(-jnp.square(apart / TOLERANCE) / 2)
