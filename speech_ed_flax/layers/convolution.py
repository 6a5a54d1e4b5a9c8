"""One-dimensional convolutions over time, ``[batch, time, width]``."""

import flax.linen as nn
import jax.numpy as jnp
from flax.typing import Initializer

from speech_ed_flax.layers.convolve import convolve
from speech_ed_flax.layers.norm import StoredNorm
from speech_ed_flax.types import Array, Bool, Float


class Convolution(nn.Module):
    """A convolution with its kernel ``[size, inputs, width]`` and, if asked for, a bias.

    Attributes:
        width: of the output.
        size: of the kernel.
        stride: frames from one place of the kernel to the next.
        padding: zeros before and after.
        use_bias: whether there is a bias.
        initialise: makes the kernel of a new model.
    """

    width: int
    size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = True
    initialise: Initializer = nn.initializers.he_normal()

    @nn.compact
    def __call__(self, x: Float[Array, "batch time inputs"]) -> Float[Array, "batch time2 width"]:
        """Convolves ``x`` over time."""
        shape = (self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", self.initialise, shape)
        x = convolve(x, kernel, self.stride, self.padding)
        return x + self.param("bias", nn.initializers.zeros, (self.width,)) if self.use_bias else x


class PositionalConvolution(nn.Module):
    """Relative positions by a wide grouped convolution (wav2vec 2.0; Baevski et al., 2020).

    The kernel is weight-normalised over all but its position: ``direction * magnitude /
    |direction|``. Both stay parameters, so that fine-tuning moves as PyTorch's does. With
    ``batch_norm`` the input is normalised by stored statistics instead (HuBERT's
    ``conv_pos_batch_norm``), and the kernel is plain.
    """

    width: int
    size: int
    groups: int
    batch_norm: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None = None
    ) -> Float[Array, "batch frames width"]:
        """Convolves ``x``; the last frame that an even kernel adds is dropped.

        With a mask, padding that the batch norm shifted is silenced again before real frames see
        it (upstream lets it through).
        """
        frames = x.shape[1]
        shape = (self.size, self.width // self.groups, self.width)
        initialise = nn.initializers.normal(2 * (self.size * self.width) ** -0.5)
        if self.batch_norm:
            x = StoredNorm(name="norm")(x)
            x = x if mask is None else jnp.where(mask[:, :, None], x, 0)
            kernel = self.param("kernel", initialise, shape)
        else:
            direction = self.param("direction", initialise, shape)
            magnitude = self.param("magnitude", lambda _: _norm(direction))
            kernel = direction * (magnitude / _norm(direction)).astype(direction.dtype)
        x = convolve(x, kernel, padding=self.size // 2, groups=self.groups)[:, :frames]
        return x + self.param("bias", nn.initializers.zeros, (self.width,))


def _norm(direction: Float[Array, "size inputs width"]) -> Float[Array, "size 1 1"]:
    squares = jnp.square(direction.astype(jnp.float32))
    return jnp.sqrt(squares.sum((1, 2), keepdims=True))
