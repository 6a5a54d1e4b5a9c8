"""Relative positions by a wide grouped convolution (wav2vec 2.0; Baevski et al., 2020)."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.convolve import convolve
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, check_activation
from speech_ed_flax.layers.norm import StoredNorm
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True)
class PositionalConfig:
    """Shape of a positional convolution.

    Attributes:
        size: of the kernel, in frames.
        groups: of channels that are convolved apart.
        activation: after it.
        stride: frames from one place of the kernel to the next.
        batch_norm: whether it has a batch norm and no weight norm (HuBERT's
            ``conv_pos_batch_norm``).
    """

    size: int
    groups: int
    activation: str
    stride: int = 1
    batch_norm: bool = False

    @classmethod
    def from_hf(cls, hf: Any, size: int | None = None, stride: int = 1) -> "PositionalConfig":
        """Reads the names that the configs of all these families share.

        Args:
            hf: config of transformers.
            size: of the kernel, where it goes by another name.
            stride: of the kernel.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        groups = hf.num_conv_pos_embedding_groups
        if groups < 1 or hf.hidden_size % groups:
            raise ConfigError(
                f"hidden_size={hf.hidden_size} is not divisible by "
                f"num_conv_pos_embedding_groups={groups}."
            )
        return cls(
            size=hf.num_conv_pos_embeddings if size is None else size,
            groups=groups,
            activation=check_activation(
                "encoder.feat_extract_activation", hf.feat_extract_activation
            ),
            stride=stride,
            batch_norm=getattr(hf, "conv_pos_batch_norm", False),
        )


class PositionalConvolution(nn.Module):
    """A wide grouped convolution, then an activation: what is to be added to the frames.

    The kernel is weight-normalised over all but its position: ``direction * magnitude /
    |direction|``. Both stay parameters, so that fine-tuning moves as PyTorch's does. With
    ``batch_norm`` the input is normalised by stored statistics instead, and the kernel is plain.
    """

    config: PositionalConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None = None
    ) -> Float[Array, "batch frames2 width"]:
        """Convolves ``x``; the last frame that an even kernel adds is dropped.

        With a mask, padding that the batch norm shifted is silenced again before real frames see
        it (upstream lets it through).
        """
        config, width = self.config, x.shape[-1]
        shape = (config.size, width // config.groups, width)
        initialise = nn.initializers.normal(2 * (config.size * width) ** -0.5)
        if config.batch_norm:
            x = StoredNorm(name="norm")(x)
            x = x if mask is None else jnp.where(mask[:, :, None], x, 0)
            kernel = self.param("kernel", initialise, shape)
        else:
            direction = self.param("direction", initialise, shape)
            magnitude = self.param("magnitude", lambda _: _norm(direction))
            kernel = direction * (magnitude / _norm(direction)).astype(direction.dtype)
        x = convolve(x, kernel, config.stride, config.size // 2, config.groups)
        x = x[:, : x.shape[1] - (config.size + 1) % 2]
        x = x + self.param("bias", nn.initializers.zeros, (width,))
        return ACTIVATIONS[config.activation](x)


def _norm(direction: Float[Array, "size inputs width"]) -> Float[Array, "size 1 1"]:
    squares = jnp.square(direction.astype(jnp.float32))
    return jnp.sqrt(squares.sum((1, 2), keepdims=True))
