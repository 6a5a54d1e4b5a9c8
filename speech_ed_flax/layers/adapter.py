"""The convolutions that shorten what an encoder says, so that a decoder reads less."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.feature_encoder import frame_mask
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.types import Array, Float, Int


@dataclass(frozen=True)
class AdapterConfig:
    """Strided convolutions that shorten the encoder's output.

    Attributes:
        width: of the output; a projection comes first where it differs from the encoder's.
        layers: number of convolutions.
        size: of each kernel.
        stride: of each convolution.
    """

    width: int
    layers: int
    size: int
    stride: int

    @classmethod
    def from_hf(cls, hf: Any) -> "AdapterConfig | None":
        """Reads the names that the configs of all families with an adapter share; None if off."""
        if not getattr(hf, "add_adapter", False):
            return None
        return cls(
            width=hf.output_hidden_size or hf.hidden_size,
            layers=hf.num_adapter_layers,
            size=hf.adapter_kernel_size,
            stride=hf.adapter_stride,
        )

    def frames(self, frames: Any) -> Any:
        """Returns what is left of so many frames; upstream's formula, for kernels of 1."""
        for _ in range(self.layers):
            frames = (frames - 1) // self.stride + 1  # -1 // stride + 1 keeps an empty clip empty
        return frames


class Adapter(nn.Module):
    """Convolutions with gated linear units, each shortening the sequence by its stride.

    Attributes:
        config: of the adapter.
        padding: ``"exact"`` or ``"invariant"``; see ``waveform_encoder``.
    """

    config: AdapterConfig
    padding: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames2 width2"], Int[Array, " batch"] | None]:
        """Returns the shortened sequence and its real lengths."""
        config = self.config
        if x.shape[-1] != config.width:
            x = Dense(config.width, name="projection")(x)
            x = LayerNorm(TORCH_EPSILON, name="norm")(x)
        for index in range(config.layers):
            if lengths is not None and self.padding == "invariant":
                x = jnp.where(frame_mask(lengths, x.shape[1])[:, :, None], x, 0)
            name = f"layers_{index}"
            x = Convolution(2 * config.width, config.size, config.stride, 1, name=name)(x)
            x = nn.glu(x)
            if lengths is not None:
                lengths = (lengths - 1) // config.stride + 1
        return x, lengths


NAMES = {
    "adapter/projection": "adapter.proj",
    "adapter/norm": "adapter.proj_layer_norm",
    "adapter/layers_{}": "adapter.layers.{}.conv",
}
"""Rows of a family's table."""
