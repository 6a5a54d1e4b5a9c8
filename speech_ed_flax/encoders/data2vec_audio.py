"""data2vec (Baevski et al., 2022), the model of speech.

Behaviour matched: transformers 5.23 ``Data2VecAudioModel``.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.family import Family
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.feed_forward import ACTIVATIONS
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.positional import PositionalConfig
from speech_ed_flax.layers.transformer import TransformerEncoder
from speech_ed_flax.layers.waveform_encoder import (
    FRESH,
    NAMES,
    UNUSED,
    WaveformEncoder,
    WaveformEncoderConfig,
    layer_from_hf,
    without_unread_mask,
)
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class Data2VecAudioConfig(WaveformEncoderConfig):
    """Shape of a data2vec encoder of speech.

    Attributes:
        positional: each of the convolutions whose last output is added to the frames.
        positional_layers: number of them.
    """

    positional: PositionalConfig
    positional_layers: int

    @classmethod
    def from_hf(cls, hf: Any) -> "Data2VecAudioConfig":
        """Reads a ``Data2VecAudioConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(
            **cls.shared(hf, norm="layer"),
            layer=layer_from_hf(hf, pre_norm=False),
            positional=PositionalConfig.from_hf(hf, size=hf.conv_pos_kernel_size),
            positional_layers=hf.num_conv_pos_embeddings,
        )


class PositionalConvolutions(nn.Module):
    """Convolutions on top of each other, each with a norm that learns nothing."""

    config: PositionalConfig
    depth: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], mask: Bool[Array, "batch frames"] | None = None
    ) -> Float[Array, "batch frames width"]:
        """Returns what is to be added to ``x``.

        With a mask, padding is silenced before each convolution reads it; upstream lets through
        what the one below wrote there.
        """
        size, width, frames = self.config.size, x.shape[-1], x.shape[1]
        norm = LayerNorm(TORCH_EPSILON, use_bias=False, use_scale=False)
        for index in range(self.depth):
            x = x if mask is None else jnp.where(mask[:, :, None], x, 0)
            name = f"layers_{index}"
            convolution = Convolution(
                width, size, 1, size // 2, groups=self.config.groups, name=name
            )
            x = ACTIVATIONS[self.config.activation](norm(convolution(x)[:, :frames]))
        return x


class Data2VecAudio(WaveformEncoder):
    """Positions by several convolutions, then a transformer."""

    config: Data2VecAudioConfig

    @nn.compact
    def transform(self, x, real):
        """Adds the positions to ``x`` and transforms the sum."""
        config = self.config
        positions = PositionalConvolutions(
            config.positional, config.positional_layers, name="positions"
        )
        x = x + positions(x, None if config.padding == "exact" else real)
        return TransformerEncoder(config.layer, config.layers, name="transformer")(x, real)


DATA2VEC_AUDIO = Family(
    config=Data2VecAudioConfig,
    module=Data2VecAudio,
    names=NAMES | {"positions/layers_{}": "encoder.pos_conv_embed.layers.{}.conv"},
    aliases=((r"^data2vec_audio\.", ""),),
    unused=UNUSED,
    fresh=FRESH,
    regular=without_unread_mask,
)
