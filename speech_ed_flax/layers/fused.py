"""Attention in one kernel that never writes the scores: splash attention on TPU, cuDNN on NVIDIA.

Both serve attention with many queries whose mask, if any, tells keys apart and not queries: that
of an encoder. Both are custom calls, which XLA does not partition. JAX does it for cuDNN's, over
batch and heads; splash attention on several devices needs ``jax.shard_map`` around it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.types import Array, Bool, Float

KERNELS = {"splash": "tpu", "cudnn": "gpu"}
"""The backend that each kernel is for."""

TILE = 128
"""Queries and keys that splash attention takes at a time, and the fewest queries that are served: a
step of decoding has a few, whose scores are small, and would pay for a whole tile."""

BLOCKS = (512, 384, 256, 128)
"""Sizes of splash attention's blocks; the largest that divides the time is taken."""


def check_kernel(kernel: str, dtype: jnp.dtype | None = None, backend: str | None = None) -> None:
    """Checks that attention can be computed with a kernel.

    Args:
        kernel: "xla" or a key of ``KERNELS``.
        dtype: that is computed in; None if it is not known yet.
        backend: that computes; None if it is not known yet, as when compiling ahead of time.

    Raises:
        ConfigError: saying what to use instead.
    """
    if kernel == "xla":
        return
    if kernel not in KERNELS:
        raise ConfigError(f"attention={kernel!r} is not known: use 'xla', 'cudnn' or 'splash'.")
    if backend not in (None, KERNELS[kernel]):
        raise ConfigError(
            f"attention={kernel!r} is for {KERNELS[kernel]!r} and this process computes on "
            f"{backend!r}: use attention='xla'."
        )
    if kernel == "cudnn" and dtype not in (None, jnp.bfloat16, jnp.float16):
        raise ConfigError(
            f"attention='cudnn' computes in bfloat16 or float16 and not in {dtype}: load the model "
            "with dtype='bfloat16', or use attention='xla'."
        )


def serves(query: Array, mask: Array | None, bias: Array | None) -> bool:
    """Tells whether the kernels compute such an attention."""
    by_key = mask is None or mask.shape[1:3] == (1, 1)
    return query.shape[2] >= TILE and by_key and bias is None


def splash(
    query: Float[Array, "batch heads target head_dim"],
    key: Float[Array, "batch heads source head_dim"],
    value: Float[Array, "batch heads source head_dim"],
    mask: Bool[Array, "#batch 1 1 source"] | None,
    bias: None = None,
    interpret: bool = False,
) -> Float[Array, "batch heads target head_dim"]:
    """Computes ``attend`` with Pallas splash attention.

    Time is padded to whole tiles. Every query is of segment 1, and so is every key that is seen.

    Args:
        query: scaled already.
        key: of the source.
        value: of the source.
        mask: which keys are seen.
        bias: none.
        interpret: whether the kernel is interpreted, which any backend can do.
    """
    batch, heads, target, _ = query.shape
    seen = jnp.ones((1, key.shape[2]), bool) if mask is None else mask[:, 0, 0]
    seen = _padded(jnp.broadcast_to(seen, (batch, key.shape[2])), 1, TILE)
    query, key, value = (_padded(x, 2, TILE) for x in (query, key, value))
    kernel = _splash_kernel(heads, query.shape[2], key.shape[2], interpret)
    mixed = jax.vmap(kernel)(query, key, value, seen)
    return _zero_if_blind(mixed[:, :, :target], mask)


def _splash_kernel(heads: int, target: int, source: int, interpret: bool) -> Callable[..., Array]:
    """Returns splash attention of one utterance: of queries, keys, values and seen keys."""
    # JAX may move what is experimental: only who asks for this kernel should notice.
    from jax.experimental.pallas.ops.tpu import splash_attention as pallas

    rows, columns = (next(b for b in BLOCKS if time % b == 0) for time in (target, source))
    sizes = pallas.BlockSizes(
        *(rows, columns, columns),  # forward
        *(rows, columns, columns),  # gradients of keys and values
        *(rows, columns),  # gradient of queries
    )
    everything = pallas.MultiHeadMask([pallas.FullMask((target, source))] * heads)
    kernel = pallas.make_splash_mha_single_device(
        everything, block_sizes=sizes, interpret=interpret
    )

    def one(query: Array, key: Array, value: Array, seen: Array) -> Any:
        segments = pallas.SegmentIds(jnp.ones(target, jnp.int32), seen.astype(jnp.int32))
        return kernel(query, key, value, segments)

    return one


def _padded(x: Array, axis: int, multiple: int) -> Array:
    """Pads an axis with zeros to a multiple of a size."""
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, -x.shape[axis] % multiple)
    return jnp.pad(x, widths)


def cudnn(
    query: Float[Array, "batch heads target head_dim"],
    key: Float[Array, "batch heads source head_dim"],
    value: Float[Array, "batch heads source head_dim"],
    mask: Bool[Array, "#batch 1 1 source"] | None,
    bias: None = None,
) -> Float[Array, "batch heads target head_dim"]:
    """Computes ``attend`` with cuDNN's fused attention.

    Raises:
        ConfigError: if cuDNN is not there, or does not compute such shapes or such a dtype.
    """
    check_kernel("cudnn", query.dtype)
    target, seen = query.shape[2], mask
    if mask is not None:  # cuDNN reads what each query sees; its gradient wants even lengths then
        query, key, value = (_padded(x, 2, 2) for x in (query, key, value))
        seen = _padded(mask, 3, 2)
        seen = jnp.broadcast_to(seen, (*seen.shape[:2], query.shape[2], key.shape[2]))
    parts = (x.swapaxes(1, 2) for x in (query, key, value))
    try:
        mixed = jax.nn.dot_product_attention(*parts, mask=seen, scale=1.0, implementation="cudnn")
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"attention='cudnn' does not work here ({error}): use attention='xla'."
        ) from error
    return _zero_if_blind(mixed.swapaxes(1, 2)[:, :, :target], mask)


def _zero_if_blind(
    mixed: Float[Array, "batch heads target head_dim"],
    mask: Bool[Array, "#batch 1 1 source"] | None,
) -> Float[Array, "batch heads target head_dim"]:
    """Replaces the mean of all values, which the kernels return where no key is seen, by zero."""
    return mixed if mask is None else jnp.where(mask.any(-1, keepdims=True), mixed, 0)
