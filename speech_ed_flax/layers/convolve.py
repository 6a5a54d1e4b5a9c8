"""One-dimensional convolution over time as arithmetic, formulated for each backend."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.types import Array, Float

BLOCK = 8
"""Taps of a grouped kernel whose gradient is one product of matrices on XLA:CPU. More make the
unfolded input larger, fewer the unfolded gradient: 8 of 128 is about where both are small."""

_LAYOUT = ("NWC", "WIO", "NWC")


def convolve(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size inputs outputs"],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[Array, "batch time2 outputs"]:
    """Convolves over time with the same zero padding on both sides.

    The formulation is chosen here, for each backend, and nowhere else; ``benchmarks/kernels.py
    convolution positions`` compares them. XLA:CPU convolves dense layers near the speed of its
    products, forward and backward, but not samples (one channel) and not groups, whose kernel
    gradient it computes 20 to 60 times slower than the same arithmetic as products.

    Args:
        x: the sequence.
        kernel: of every group, side by side along its outputs.
        stride: frames between two outputs.
        padding: zeros before and after the sequence.
        groups: convolutions side by side; they divide the inputs and the outputs.
    """
    library = partial(_library, stride=stride, padding=padding, groups=groups)
    if groups > 1 and stride == 1:
        formulation = partial(_side_by_side, padding=padding, groups=groups)
    elif x.shape[-1] == 1:
        formulation = partial(_of_patches, stride=stride, padding=padding)
    else:
        return library(x, kernel)
    return lax.platform_dependent(x, kernel, cpu=formulation, default=library)


def _library(x: Array, kernel: Array, stride: int, padding: int, groups: int) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(padding, padding)],
        dimension_numbers=_LAYOUT,
        feature_group_count=groups,
    )


def _patches(
    x: Float[Array, "batch samples 1"], size: int, stride: int, padding: int
) -> Float[Array, "batch frames size"]:
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    span = (x.shape[1] - size) // stride * stride + 1
    return jnp.concatenate([x[:, tap : tap + span : stride] for tap in range(size)], -1)


def _multiplied(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    patches = _patches(x, len(kernel), stride, padding)
    product = jnp.einsum("bfp,po->bfo", patches, kernel[:, 0], preferred_element_type=jnp.float32)
    return product.astype(x.dtype)


_of_patches = jax.custom_vjp(_multiplied, nondiff_argnums=(2, 3))
"""A convolution of one channel as a product of matrices, and its gradients."""


def _of_patches_forward(x: Array, kernel: Array, stride: int, padding: int):
    return _multiplied(x, kernel, stride, padding), (x, kernel)


def _of_patches_backward(stride: int, padding: int, kept: tuple[Array, Array], change: Array):
    x, kernel = kept
    _, transposed = jax.vjp(lambda x: _multiplied(x, kernel, stride, padding), x)
    # What autodiff would make of the product, outputs times taps, takes XLA:CPU twice as long.
    patches = _patches(x, len(kernel), stride, padding)
    of_kernel = jnp.einsum("bfp,bfo->po", patches, change, preferred_element_type=jnp.float32)
    return *transposed(change), of_kernel[:, None].astype(kernel.dtype)


_of_patches.defvjp(_of_patches_forward, _of_patches_backward)


def _each_group(x: Array, kernel: Array, padding: int, groups: int) -> Array:
    parts = zip(jnp.split(x, groups, -1), jnp.split(kernel, groups, -1), strict=True)
    return jnp.concatenate([_library(*part, 1, padding, 1) for part in parts], -1)


_side_by_side = jax.custom_vjp(_each_group, nondiff_argnums=(2, 3))
"""A convolution for each group, with a gradient of the kernel that is made of products."""


def _side_by_side_forward(x: Array, kernel: Array, padding: int, groups: int):
    return _each_group(x, kernel, padding, groups), (x, kernel)


def _side_by_side_backward(padding: int, groups: int, kept: tuple[Array, Array], change: Array):
    x, kernel = kept
    _, transposed = jax.vjp(lambda x: _each_group(x, kernel, padding, groups), x)
    parts = (_groups_first(x, groups), _groups_first(change, groups))
    # One group at a time: what is unfolded of it stays in the cache.
    kernels = lax.map(lambda part: _kernel_gradient(*part, len(kernel), padding), parts)
    of_kernel = jnp.moveaxis(kernels, 0, 2).reshape(kernel.shape).astype(kernel.dtype)
    return *transposed(change), of_kernel


_side_by_side.defvjp(_side_by_side_forward, _side_by_side_backward)


def _groups_first(x: Array, groups: int) -> Float[Array, "groups batch time width"]:
    return jnp.moveaxis(x.reshape(*x.shape[:2], groups, -1), 2, 0)


def _kernel_gradient(
    x: Float[Array, "batch time inputs"],
    change: Float[Array, "batch time2 outputs"],
    size: int,
    padding: int,
) -> Float[Array, "size inputs outputs"]:
    """Returns the gradient of a kernel of stride 1: one product of matrices.

    Tap ``block * BLOCK + tap`` multiplies the input ``tap`` frames on with the output that is
    ``block * BLOCK - padding`` frames back. So one side is unfolded by taps and the other one by
    blocks, 8 and 16 times for 128 taps, where unfolding by both takes 128 times the memory.
    """
    blocks = -(-size // BLOCK)
    rows = x.shape[1] + BLOCK - 1  # windows of BLOCK frames that touch the input
    inputs = _unfolded(x, range(1 - BLOCK, 1), rows)
    back = range(padding + 1 - BLOCK, padding + 1 - BLOCK - blocks * BLOCK, -BLOCK)
    outputs = _unfolded(change, back, rows)
    product = jnp.einsum("bri,bro->io", inputs, outputs, preferred_element_type=jnp.float32)
    taps = product.reshape(BLOCK, x.shape[2], blocks, change.shape[2])
    return taps.transpose(2, 0, 1, 3).reshape(-1, *taps.shape[1::2])[:size]


def _unfolded(
    x: Float[Array, "batch time width"], offsets: range, rows: int
) -> Float[Array, "batch rows unfolded"]:
    """Returns rows of the frames at ``row + offset``, zero where there is none."""
    first, last = min(offsets), max(offsets)
    before = max(-first, 0)
    x = jnp.pad(x, ((0, 0), (before, max(last + rows - x.shape[1], 0)), (0, 0)))
    return jnp.concatenate([x[:, before + o : before + o + rows] for o in offsets], -1)
