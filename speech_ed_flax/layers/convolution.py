"""One-dimensional convolutions over time, ``[batch, time, width]``."""

import flax.linen as nn
from flax.typing import Initializer

from speech_ed_flax.layers.convolve import convolve
from speech_ed_flax.types import Array, Float


class Convolution(nn.Module):
    """A convolution with its kernel ``[size, inputs, width]`` and, if asked for, a bias.

    Attributes:
        width: of the output.
        size: of the kernel.
        stride: frames from one place of the kernel to the next.
        padding: zeros before and after.
        use_bias: whether there is a bias.
        initialise: makes the kernel of a new model.
        groups: convolutions side by side; they divide the inputs and ``width``.
    """

    width: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    initialise: Initializer = nn.initializers.he_normal()
    groups: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "batch time inputs"]) -> Float[Array, "batch time2 width"]:
        """Convolves ``x`` over time."""
        shape = (self.size, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", self.initialise, shape)
        x = convolve(x, kernel, self.stride, self.padding, self.groups)
        return x + self.param("bias", nn.initializers.zeros, (self.width,)) if self.use_bias else x
