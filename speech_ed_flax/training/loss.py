"""The loss as a sum over the labels that count, and their number.

Sums add up over micro-batches and devices, means of unequal counts do not: what is divided once,
by the count of all of them, weighs every label alike.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from speech_ed_flax.labels import IGNORED, label_losses
from speech_ed_flax.layers.linear import INITIALISE, project
from speech_ed_flax.training.settings import LossSettings
from speech_ed_flax.types import Array, Bool, Float, Int, Params, PRNGKeyArray

CTC_HEAD = "ctc"
"""Where the parameters of the CTC head stand, beside ``encoder`` and ``decoder``."""


class Sums(NamedTuple):
    """Sums over the labels that count.

    Attributes:
        loss: what is minimised.
        cross_entropy: part of it, unweighted, with label smoothing.
        ctc: part of it, unweighted; 0 where CTC is off.
        labels: how many there are, int32.
    """

    loss: Float[Array, ""]
    cross_entropy: Float[Array, ""]
    ctc: Float[Array, ""]
    labels: Int[Array, ""]


def loss_sums(
    logits: Float[Array, "batch target vocab"],
    labels: Int[Array, "batch target"],
    settings: LossSettings,
    ctc: Float[Array, ""] | float = 0.0,
    guide: Float[Array, ""] | float = 0.0,
) -> Sums:
    """Returns the parts of the loss.

    ``ctc`` and ``guide`` are ``ctc_sum``'s and ``guide_sum``'s where the settings ask for them.
    """
    logits = logits.astype(jnp.float32)
    counted = labels != IGNORED
    entropy = jnp.sum(_smoothed(logits, labels, settings.label_smoothing), where=counted)
    loss = (1 - settings.ctc_weight) * entropy + settings.ctc_weight * ctc
    loss += settings.guide * guide
    if settings.z_loss:
        partition = jax.nn.logsumexp(logits, axis=-1)
        loss += settings.z_loss * jnp.sum(jnp.square(partition), where=counted)
    return Sums(loss, entropy, jnp.asarray(ctc, jnp.float32), counted.sum(dtype=jnp.int32))


def _smoothed(
    logits: Float[Array, "batch target vocab"], labels: Int[Array, "batch target"], smoothing: float
) -> Float[Array, "batch target"]:
    """Returns the cross-entropy of each position, as ``torch.nn.functional.cross_entropy`` does."""
    right = label_losses(logits, labels)
    if not smoothing:
        return right
    anything = jax.nn.logsumexp(logits, axis=-1) - logits.mean(-1)
    return (1 - smoothing) * right + smoothing * anything


def ctc_head(key: PRNGKeyArray, width: int, vocab: int) -> dict[str, Array]:
    """Returns random parameters of a dense layer from encoder states to CTC's scores."""
    return {"weight": INITIALISE(key, (vocab, width)), "bias": jnp.zeros(vocab)}


def ctc_sum(
    head: Params,
    states: Float[Array, "batch source width"],
    mask: Bool[Array, "batch source"] | None,
    labels: Int[Array, "batch target"],
    settings: LossSettings,
) -> Float[Array, ""]:
    """Returns the sum of each utterance's CTC loss (Graves et al., 2006).

    An utterance with fewer states than its labels need has no alignment; it counts as 0, as with
    ``zero_infinity`` in PyTorch.
    """
    logits = project(states, head["weight"]) + head["bias"].astype(jnp.float32)
    padding = jnp.zeros(states.shape[:2]) if mask is None else 1.0 - mask
    labels, spoken = _spoken(labels, settings.ctc_silent)
    blank = 0 if settings.ctc_blank is None else settings.ctc_blank
    losses = optax.ctc_loss(logits, padding, labels, 1.0 - spoken, blank_id=blank)
    repeats = (labels[:, 1:] == labels[:, :-1]) & spoken[:, 1:]
    needed = spoken.sum(-1) + repeats.sum(-1)
    possible = needed <= states.shape[1] - padding.sum(-1)
    return jnp.sum(losses, where=possible)


def _spoken(
    labels: Int[Array, "batch target"], silent: tuple[int, ...]
) -> tuple[Int[Array, "batch target"], Bool[Array, "batch target"]]:
    """Returns the labels that are heard, moved to the front, and where they are."""
    heard = labels != IGNORED
    for token in silent:
        heard &= labels != token
    order = jnp.argsort(~heard, axis=-1, stable=True)
    heard = jnp.take_along_axis(heard, order, axis=-1)
    return jnp.where(heard, jnp.take_along_axis(labels, order, axis=-1), 0), heard
