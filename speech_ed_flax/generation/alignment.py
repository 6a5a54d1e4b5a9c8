"""Which speech each token was written from: the weights of the cross-attention."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.layers.transformer import Context
from speech_ed_flax.types import Array, Float, Int, Params


def cross_attentions(
    module: nn.Module,
    params: Params,
    context: Context,
    tokens: Int[Array, "sequences target"],
) -> tuple[Float[Array, "sequences heads target source"], ...]:
    """Returns, for each decoder layer, what was heard while the token after each was chosen.

    One pass over finished sequences gives the weights that the steps had, because a step computes
    what the pass does; the search itself keeps none.

    Args:
        module: a ``SpeechEncoderDecoder``.
        params: its parameters.
        context: the encoder's keys and values, one row an utterance.
        tokens: several sequences an utterance, side by side; fill below 0 is read as token 0.
    """
    _, heard = module.apply(
        {"params": params},
        jnp.maximum(tokens, 0),
        context,
        method="decode",
        mutable=["intermediates"],
    )
    layers: Any = heard["intermediates"]["decoder"]["transformer"]
    return tuple(
        _unfold(layers[f"layers_{index}"]["cross_attention"]["weights"][0], tokens)
        for index in range(len(context.layers))
    )


def _unfold(
    weights: Float[Array, "batch heads queries source"], tokens: Int[Array, "sequences target"]
) -> Float[Array, "sequences heads target source"]:
    """Returns a row for each sequence: those of one utterance are folded into its queries.

    Where a decoder has several states a token, as ProphetNet does, the last one predicts.
    """
    (batch, heads, _, source), (sequences, target) = weights.shape, tokens.shape
    parts = weights.reshape(batch, heads, -1, target, sequences // batch, source)[:, :, -1]
    return jnp.moveaxis(parts, 3, 1).reshape(sequences, heads, target, source)
