"""One-dimensional convolution over time as arithmetic, formulated for each backend."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.layers.sizes import larger
from speech_ed_flax.types import Array, Float

BLOCK = 8
"""Taps of a grouped kernel whose gradient is one product of matrices on XLA:CPU. More make the
unfolded input larger, fewer the unfolded gradient: 8 of 128 is about where both are small."""


class Steps(NamedTuple):
    """How a kernel moves.

    Attributes:
        stride: frames between two outputs.
        padding: zeros before and after the sequence.
        groups: convolutions side by side.
    """

    stride: int
    padding: int
    groups: int


def convolve(
    x: Float[Array, "batch time width"],
    kernel: Float[Array, "size inputs outputs"],
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Float[Array, "batch time2 outputs"]:
    """Convolves over time with the same zero padding on both sides.

    The formulation is chosen here, for each backend, and nowhere else; ``benchmarks/kernels.py
    convolution positions`` compares them. XLA:CPU convolves frames near the speed of its products,
    but not samples (one channel), nor groups, whose kernel's gradient takes it 20 to 60 times as
    long as the same arithmetic in products.

    Args:
        x: the sequence.
        kernel: of every group, side by side along its outputs.
        stride: frames between two outputs.
        padding: zeros before and after the sequence.
        groups: convolutions side by side; they divide the inputs and the outputs.
    """
    steps = Steps(stride, padding, groups)
    library = partial(_library, steps=steps)
    if x.shape[-1] > 1 and groups == 1:
        return library(x, kernel)
    products = _folded if groups > 1 and stride > 1 else _of_products
    return lax.platform_dependent(
        x, kernel, cpu=lambda x, kernel: products(x, kernel, steps), default=library
    )


def _library(x: Array, kernel: Array, steps: Steps) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        (steps.stride,),
        [(steps.padding, steps.padding)],
        dimension_numbers=("NWC", "WIO", "NWC"),
        feature_group_count=steps.groups,
    )


def _forward(x: Array, kernel: Array, steps: Steps) -> Array:
    """Convolves as XLA:CPU does it fastest."""
    if x.shape[-1] == 1:
        patches = _patches(x, len(kernel), steps)
        return _product("bfp,po->bfo", patches, kernel[:, 0]).astype(x.dtype)
    alone = partial(_library, steps=steps._replace(groups=1))
    parts = (jnp.split(part, steps.groups, -1) for part in (x, kernel))
    return jnp.concatenate([alone(*part) for part in zip(*parts, strict=True)], -1)


_of_products = jax.custom_vjp(_forward, nondiff_argnums=(2,))
"""``_forward`` with a gradient of the kernel that is made of products of matrices."""


def _folded(x: Array, kernel: Array, steps: Steps) -> Array:
    """Convolves with groups and a stride as without one: frames between two outputs are channels.

    The gradient of the kernel is then made of products too: SEW's, of 128 taps, a stride of 2 and
    512 channels, takes a twentieth of the time.
    """
    batch, time, width = x.shape
    size, inputs, outputs = kernel.shape
    stride, padding, groups = steps
    places = (time + 2 * padding - size) // stride + 1
    taps = -(-size // stride)
    read = (places + taps - 1) * stride
    x = jnp.pad(x, ((0, 0), (padding, larger(read - padding - time, 0)), (0, 0)))[:, :read]
    x = x.reshape(batch, -1, stride, groups, inputs).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, taps * stride - size), (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride * inputs, outputs)
    return _of_products(x.reshape(batch, -1, stride * width), kernel, Steps(1, 0, groups))


def _keep(x: Array, kernel: Array, steps: Steps):
    return _forward(x, kernel, steps), (x, kernel)


def _backward(steps: Steps, kept: tuple[Array, Array], change: Array):
    x, kernel = kept
    _, transposed = jax.vjp(lambda x: _forward(x, kernel, steps), x)
    gradient = _of_patches if steps.groups == 1 else _of_groups
    return *transposed(change), gradient(x, change, len(kernel), steps).astype(kernel.dtype)


_of_products.defvjp(_keep, _backward)


def _product(equation: str, a: Array, b: Array) -> Array:
    return jnp.einsum(equation, a, b, preferred_element_type=jnp.float32)


def _of_patches(x: Array, change: Array, size: int, steps: Steps) -> Array:
    """Returns the gradient of a kernel of one channel.

    The order of the factors matters: outputs by taps, as autodiff would multiply them, takes
    XLA:CPU twice as long as taps by outputs.
    """
    return _product("bfp,bfo->po", _patches(x, size, steps), change)[:, None]


def _patches(
    x: Float[Array, "batch samples 1"], size: int, steps: Steps
) -> Float[Array, "batch frames size"]:
    """Returns the samples that a kernel sees at each of its places."""
    x = jnp.pad(x, ((0, 0), (steps.padding, steps.padding), (0, 0)))
    span = (x.shape[1] - size) // steps.stride * steps.stride + 1
    taps = [x[:, tap : tap + span : steps.stride] for tap in range(size)]
    return jnp.concatenate(taps, -1)


def _of_groups(x: Array, change: Array, size: int, steps: Steps) -> Array:
    """Returns the gradient of a kernel with groups, of stride 1.

    It is computed one group after the other: what is unfolded of it stays in the cache.
    """

    def apart(x):
        return jnp.moveaxis(x.reshape(*x.shape[:2], steps.groups, -1), 2, 0)

    kernels = lax.map(
        lambda group: _of_blocks(group[0], group[1], size, steps.padding), (apart(x), apart(change))
    )
    return jnp.moveaxis(kernels, 0, 2).reshape(size, kernels.shape[2], -1)


def _of_blocks(
    x: Float[Array, "batch time inputs"],
    change: Float[Array, "batch time2 outputs"],
    size: int,
    padding: int,
) -> Float[Array, "size inputs outputs"]:
    """Returns the gradient of a kernel of stride 1 as one product of matrices.

    Tap ``block * BLOCK + tap`` multiplies the input ``tap`` frames on with the output that is
    ``block * BLOCK - padding`` frames back. So one side is unfolded by taps and the other one by
    blocks, 8 and 16 times for 128 taps, where unfolding by both takes 128 times the memory.
    """
    blocks = -(-size // BLOCK)
    rows = x.shape[1] + BLOCK - 1  # windows of BLOCK frames that touch the input
    inputs = _unfolded(x, range(1 - BLOCK, 1), rows)
    back = range(padding + 1 - BLOCK, padding + 1 - BLOCK - blocks * BLOCK, -BLOCK)
    outputs = _unfolded(change, back, rows)
    taps = _product("bri,bro->io", inputs, outputs)
    taps = taps.reshape(BLOCK, x.shape[2], blocks, change.shape[2])
    return taps.transpose(2, 0, 1, 3).reshape(-1, *taps.shape[1::2])[:size]


def _unfolded(
    x: Float[Array, "batch time width"], offsets: range, rows: int
) -> Float[Array, "batch rows unfolded"]:
    """Returns rows of the frames at ``row + offset``, zero where there is none."""
    first, last = min(offsets), max(offsets)
    before = max(-first, 0)
    x = jnp.pad(x, ((0, 0), (before, max(last + rows - x.shape[1], 0)), (0, 0)))
    return jnp.concatenate([x[:, before + o : before + o + rows] for o in offsets], -1)
