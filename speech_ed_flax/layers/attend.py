"""The core of attention: how queries, keys and values become a mixture of values, per backend."""

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.layers import fused
from speech_ed_flax.layers.sizes import surely
from speech_ed_flax.types import Array, Bool, Float

LARGE = 1 << 22
"""Scores (16 MiB of them) beyond which XLA:CPU is given one head at a time: what is written and
read again then stays in the cache. ``benchmarks/kernels.py attention`` shows it: 1.5 to 2.3 times
faster over Whisper's 1,500 frames, no gain over the 499 of a 10 s waveform."""

Mask = Bool[Array, "#batch #heads #target source"]
Bias = Float[Array, "#batch #heads #target source"]


def attention_weights(
    query: Float[Array, "batch heads target head_dim"],
    key: Float[Array, "batch heads source head_dim"],
    mask: Mask | None = None,
    bias: Bias | None = None,
) -> Float[Array, "batch heads target source"]:
    """Returns how much of each value a query reads, in float32; 0 of all if it may see none."""
    scores = _scores(query, key, mask, bias)
    weights = jax.nn.softmax(scores)
    return weights if mask is None else jnp.where(mask, weights, 0.0)


def mix(
    weights: Float[Array, "batch heads target source"],
    value: Float[Array, "batch heads source head_dim"],
) -> Float[Array, "batch heads target head_dim"]:
    """Returns the weighted sums of the values."""
    return jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value)


def attend(
    query: Float[Array, "batch heads target head_dim"],
    key: Float[Array, "batch heads source head_dim"],
    value: Float[Array, "batch heads source head_dim"],
    mask: Mask | None = None,
    bias: Bias | None = None,
    kernel: str = "xla",
) -> Float[Array, "batch heads target head_dim"]:
    """Returns what the queries, scaled already, read of the values; nothing if they may see none.

    The formulation is chosen here, for each backend, and nowhere else. It is the backend that is
    compiled for, not the one of this process, so a CPU compiles for an accelerator as it would.

    Args:
        query: scaled already.
        key: of the source.
        value: of the source.
        mask: which keys each query sees; all if None.
        bias: added to the scores.
        kernel: "xla" leaves the attention to XLA. "splash" (on TPU) and "cudnn" (on NVIDIA) compute
            what ``fused.serves`` in one kernel. They are not the default because XLA does not
            partition what it did not make: only plain formulations work under any sharding.

    Raises:
        ConfigError: if the kernel cannot compute this.
    """
    chosen = {}
    if surely(lambda: query.size // query.shape[-1] * key.shape[2] >= LARGE):
        chosen["cpu"] = _head_by_head
    if kernel != "xla" and fused.serves(query, mask, bias):
        chosen |= {"splash": {"tpu": fused.splash}, "cudnn": {"cuda": fused.cudnn}}[kernel]
    if not chosen:
        return _whole(query, key, value, mask, bias)
    return lax.platform_dependent(query, key, value, mask, bias, **chosen, default=_whole)


def _scores(query, key, mask, bias):
    scores = jnp.einsum("bhqd,bhkd->bhqk", query, key, preferred_element_type=jnp.float32)
    if bias is not None:
        scores += bias
    return scores if mask is None else jnp.where(mask, scores, jnp.finfo(scores.dtype).min)


def _whole(query, key, value, mask, bias):
    return mix(attention_weights(query, key, mask, bias), value)


def _head_by_head(query, key, value, mask, bias):
    """Computes one head of one utterance after the other, and divides after mixing."""

    def one(parts):
        query, key, value, mask, bias = jax.tree.map(lambda part: part[None, None], parts)
        scores = _scores(query, key, mask, bias)
        weights = jnp.exp(scores - scores.max(-1, keepdims=True))
        weights = weights if mask is None else jnp.where(mask, weights, 0.0)
        total = jnp.maximum(weights.sum(-1, keepdims=True), jnp.finfo(jnp.float32).tiny)
        return (mix(weights, value) / total).astype(value.dtype)[0, 0]

    batch, heads = query.shape[:2]

    def split(part):
        part = jnp.broadcast_to(part, (batch, heads, *part.shape[2:]))
        return part.reshape(batch * heads, *part.shape[2:])

    parts = jax.tree.map(split, (query, key, value, mask, bias))
    return lax.map(one, parts).reshape(query.shape)
