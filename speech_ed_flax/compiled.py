"""The calls of a model, each compiled once per shape, and what they return."""

from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax.traverse_util import unflatten_dict

from speech_ed_flax.labels import cross_entropy
from speech_ed_flax.layers.cache import Cache
from speech_ed_flax.model import SpeechEncoderDecoder, initialise, match_dtype
from speech_ed_flax.precision import widen
from speech_ed_flax.types import Array, Bool, Float, Int, Params, PRNGKeyArray


@flax.struct.dataclass
class SpeechOutput:
    """What a call returns.

    Attributes:
        logits: float32 scores ``[batch, target, vocab]``.
        loss: mean cross-entropy over the labels that count, if labels were given.
        encoder_last_hidden_state: states ``[batch, source, width]``, of the decoder's width.
    """

    logits: Array
    loss: Array | None
    encoder_last_hidden_state: Array


@flax.struct.dataclass
class EncoderOutput:
    """Encoded speech.

    Attributes:
        last_hidden_state: states ``[batch, source, width]``, of the decoder's width.
        attention_mask: which of them are real ``[batch, source]``; None if all are.
    """

    last_hidden_state: Array
    attention_mask: Array | None


@flax.struct.dataclass
class DecoderOutput:
    """Scores of the next tokens ``[batch, target, vocab]``, and the cache if there was one."""

    logits: Array
    past_key_values: Cache | None


@partial(jax.jit, static_argnames=("module", "dtype"))
def random_params(module: SpeechEncoderDecoder, key: PRNGKeyArray, dtype: Any) -> Params:
    """Returns a nested tree of random parameters."""
    params = initialise(module, key)
    return unflatten_dict({p: a.astype(dtype) for p, a in params.items()}, sep="/")


@partial(jax.jit, static_argnames=("module",))
def forward(
    module: SpeechEncoderDecoder,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    tokens: Int[Array, "batch target"],
    token_mask: Bool[Array, "batch target"] | None,
    positions: Int[Array, "#batch target"] | None,
    labels: Int[Array, "batch target"] | None,
    key: PRNGKeyArray | None,
) -> SpeechOutput:
    """Encodes, decodes and, given labels, computes the loss; dropout is on with a key."""
    params = widen(params)
    inputs = match_dtype(inputs, params)
    arguments = (inputs, tokens, mask, token_mask, positions)
    outputs: Any = module.apply({"params": params}, *arguments, rngs=_rngs(key))
    logits, states = outputs
    loss = None if labels is None else cross_entropy(logits, labels)
    return SpeechOutput(logits, loss, states)


@partial(jax.jit, static_argnames=("module",))
def encode(
    module: SpeechEncoderDecoder,
    params: Params,
    inputs: Float[Array, "batch ..."],
    mask: Bool[Array, "batch any"] | None,
    key: PRNGKeyArray | None,
) -> EncoderOutput:
    """Encodes speech; dropout is on with a key."""
    params = widen(params)
    inputs = match_dtype(inputs, params)
    outputs: Any = module.apply({"params": params}, inputs, mask, method="encode", rngs=_rngs(key))
    return EncoderOutput(*outputs)


@partial(jax.jit, static_argnames=("module",))
def decode(
    module: SpeechEncoderDecoder,
    params: Params,
    tokens: Int[Array, "batch target"],
    encoded: EncoderOutput,
    cache: Cache | None,
    position: Int[Array, ""] | int,
    mask: Bool[Array, "batch length"] | None,
    positions: Int[Array, "#batch target"] | None,
    key: PRNGKeyArray | None,
) -> DecoderOutput:
    """Decodes tokens given encoded speech; dropout is on with a key."""
    variables = {"params": widen(params)}
    states = (encoded.last_hidden_state, encoded.attention_mask)
    context = module.apply(variables, *states, method="context")
    arguments = (tokens, context, cache, position, mask, positions)
    outputs: Any = module.apply(variables, *arguments, method="decode", rngs=_rngs(key))
    return DecoderOutput(*outputs)


def _rngs(key: PRNGKeyArray | None) -> dict[str, Any]:
    return {} if key is None else {"dropout": key}


def as_mask(mask: Any | None) -> Bool[Array, "batch any"] | None:
    """Returns a mask of zeros and ones, or of booleans, as booleans."""
    return None if mask is None else jnp.asarray(mask).astype(bool)
