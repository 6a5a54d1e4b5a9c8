"""Convolutions over frames and mels, ``[batch, frames, mels, channels]``, for each backend."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from speech_ed_flax.types import Array, Float

Plane = Float[Array, "batch frames mels channels"]
Strided = Float[Array, "batch frames2 mels2 width"]


class PlaneConvolution(nn.Module):
    """A convolution of one channel, or of every channel on its own, with strides both ways.

    Attributes:
        width: channels of the output; of the input, 1 or as many.
        size: of the kernels, both ways.
        stride: both ways.
    """

    width: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: Plane) -> Strided:
        """Convolves ``x``, with half a kernel of zeros on every side of it."""
        shape = (self.size, self.size, 1, self.width)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        steps = {"stride": self.stride, "padding": (self.size - 1) // 2}
        library = partial(_library, **steps)
        if x.shape[-1] == 1:
            x = library(x, kernel)
        else:
            x = lax.platform_dependent(x, kernel, cpu=partial(_of_taps, **steps), default=library)
        return x + self.param("bias", nn.initializers.zeros, (self.width,))


class PointwiseConvolution(nn.Module):
    """A product with the channels of every mel of every frame."""

    width: int

    @nn.compact
    def __call__(self, x: Plane) -> Float[Array, "batch frames mels width"]:
        """Projects the channels of ``x``."""
        kernel = self.param("kernel", nn.initializers.he_normal(), (1, 1, x.shape[-1], self.width))
        x = jnp.einsum("bfmc,cw->bfmw", x, kernel[0, 0])
        return x + self.param("bias", nn.initializers.zeros, (self.width,))


def reach(positions: Any, size: int, stride: int) -> Any:
    """Returns the positions that are left of one axis; integers of any shape."""
    return (positions + 2 * ((size - 1) // 2) - size) // stride + 1


def _library(x: Plane, kernel: Array, stride: int, padding: int) -> Strided:
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NHWC", "WHIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _of_taps(x: Plane, kernel: Array, stride: int, padding: int) -> Strided:
    """Adds up what every tap sees, a strided slice.

    ``benchmarks/kernels.py plane`` shows why: XLA:CPU takes 8 times as long for a convolution with
    as many groups as channels, and 12 times backwards.
    """
    size = len(kernel)
    ends = [reach(axis, size, stride) * stride for axis in x.shape[1:3]]
    beside = ((0, 0), (padding, padding + stride), (padding, padding + stride), (0, 0))
    padded = jnp.pad(x, beside)
    total = jnp.zeros((), x.dtype)
    for mel in range(size):
        for frame in range(size):
            seen = padded[:, frame : frame + ends[0] : stride, mel : mel + ends[1] : stride]
            total = total + seen * kernel[mel, frame, 0]
    return total
