"""The encoder of fairseq's speech-to-text (Wang et al., 2020): filter banks in, states out.

Behaviour matched: transformers 5.23 ``Speech2TextEncoder``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.audio.features import FilterBankFeatures
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.feature_encoder import at_least_one_frame, frame_mask
from speech_ed_flax.layers.frame_positions import check_padding, frame_positions
from speech_ed_flax.layers.seq2seq_encoder import ALIASES, NAMES, layer_from_hf
from speech_ed_flax.layers.transformer import LayerConfig, TransformerEncoder
from speech_ed_flax.types import Array, Bool, Float, Int


@dataclass(frozen=True)
class Speech2TextConfig:
    """Shape of a speech-to-text encoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        mels: numbers in a frame of features.
        widths: of the convolutions, each of which halves the frames.
        sizes: of their kernels.
        scale: factor of the convolved frames, before positions are added.
        padding: ``"exact"`` computes what transformers computes: the convolutions read padded
            frames. ``"invariant"`` gives every clip the output it has alone.
    """

    layer: LayerConfig
    layers: int
    mels: int
    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    scale: float
    padding: Literal["exact", "invariant"] = "exact"

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.layer.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the shortest input that gives a state, without the batch: frames and mels."""
        return (1, self.mels)

    @property
    def features(self) -> FilterBankFeatures:
        """What a new encoder hears, before it is fitted to ``input_shape``."""
        return FilterBankFeatures()

    def frames(self, frames: Any) -> Any:
        """Returns the states of clips of so many frames, integers of any shape."""
        for _ in self.sizes:
            frames = (frames - 1) // 2 + 1  # -1 // 2 + 1 keeps an empty clip empty
        return frames

    @classmethod
    def from_hf(cls, hf: Any) -> "Speech2TextConfig":
        """Reads a ``Speech2TextConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        check_padding(hf)
        sizes = tuple(hf.conv_kernel_sizes)
        if len(sizes) != hf.num_conv_layers or not all(size % 2 for size in sizes):
            raise ConfigError(
                f"encoder.conv_kernel_sizes={list(sizes)} is not supported: use "
                f"num_conv_layers={hf.num_conv_layers} odd numbers."
            )
        if hf.conv_channels % 2:
            raise ConfigError(f"encoder.conv_channels={hf.conv_channels} is not an even number.")
        return cls(
            layer=layer_from_hf(hf),
            layers=hf.encoder_layers,
            mels=hf.input_feat_per_channel * hf.input_channels,
            widths=(hf.conv_channels // 2,) * (len(sizes) - 1) + (hf.d_model,),
            sizes=sizes,
            scale=hf.d_model**0.5 if hf.scale_embedding else 1.0,
        )


class Subsampler(nn.Module):
    """Convolutions with gated linear units, each of which halves the frames."""

    config: Speech2TextConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames mels"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames2 width"], Int[Array, " batch"] | None]:
        """Returns the shortened sequence and its real lengths."""
        config = self.config
        for index, (width, size) in enumerate(zip(config.widths, config.sizes, strict=True)):
            if lengths is not None and config.padding == "invariant":
                x = jnp.where(frame_mask(lengths, x.shape[1])[:, :, None], x, 0)
            x = Convolution(2 * width, size, 2, size // 2, name=f"layers_{index}")(x)
            x = nn.glu(x)
            if lengths is not None:
                lengths = (lengths - 1) // 2 + 1
        return x, lengths


class Speech2Text(nn.Module):
    """Filter banks in, states out."""

    config: Speech2TextConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames mels"],
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Float[Array, "batch source width"], Bool[Array, "batch source"] | None]:
        """Encodes filter banks; see ``at_least_one_frame`` about clips without a frame.

        Returns:
            States, and which of them are real; None if ``mask`` is None and there are frames.
        """
        config = self.config
        features, mask = at_least_one_frame(features, mask, 1)
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        x, lengths = Subsampler(config, name="feature_encoder")(features, lengths)
        real = None if lengths is None else frame_mask(lengths, x.shape[1])
        x = x * config.scale
        x = x + frame_positions(x, real)
        return TransformerEncoder(config.layer, config.layers, name="transformer")(x, real), real


SPEECH_TO_TEXT = Family(
    config=Speech2TextConfig,
    module=Speech2Text,
    names=NAMES | {"feature_encoder/layers_{}": "conv.conv_layers.{}"},
    aliases=ALIASES,
    unused=(r"^(model\.)?decoder\.", r"^lm_head\.", r"^embed_positions\.weights$"),
)
