"""The encoder of Parakeet, a Fast Conformer (Rekesh et al., 2023): log-mel frames in, states out.

Behaviour matched: transformers 5.23 ``ParakeetEncoder``.
"""

from dataclasses import dataclass
from math import log2, sqrt
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from speech_ed_flax.audio.features import ParakeetFeatures
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.batch_counters import with_counters, without_counters
from speech_ed_flax.layers.conformer import ConformerConfig, ConformerEncoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feature_encoder import at_least_one_frame, frame_mask
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.plane import PlaneConvolution, PointwiseConvolution, reach
from speech_ed_flax.types import Array, Bool, Float, Int, State


@dataclass(frozen=True, kw_only=True)
class ParakeetConfig:
    """Shape of a Parakeet encoder.

    Attributes:
        layer: of the conformer.
        layers: number of conformer layers.
        mels: numbers in a frame of features.
        channels: of the convolutions that subsample frames and mels.
        size: of their kernels; ``stride`` is that of each.
        times: that they subsample.
        scale: factor of the subsampled frames.
        position_dropout: rate on the sinusoids of distances.
        padding: ``"exact"`` computes what transformers computes: the first convolution hears
            padding. ``"invariant"`` gives every clip the output it has alone.
    """

    layer: ConformerConfig
    layers: int
    mels: int
    channels: int
    size: int
    stride: int
    times: int
    scale: float
    position_dropout: float
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
    def features(self) -> ParakeetFeatures:
        """What a new encoder hears, before it is fitted to ``input_shape``."""
        return ParakeetFeatures()

    def frames(self, frames: Any) -> Any:
        """Returns the states of clips of so many frames, integers of any shape."""
        for _ in range(self.times):
            frames = reach(frames, self.size, self.stride)
        return frames

    @classmethod
    def from_hf(cls, hf: Any) -> "ParakeetConfig":
        """Reads a ``ParakeetEncoderConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        for name in ("conv_kernel_size", "subsampling_conv_kernel_size"):
            if getattr(hf, name) % 2 == 0:
                raise ConfigError(f"encoder.{name}={getattr(hf, name)} is not an odd number.")
        head_dim = hf.hidden_size // hf.num_attention_heads
        if getattr(hf, "head_dim", head_dim) != head_dim:
            raise ConfigError(f"encoder.head_dim={hf.head_dim} is not supported: use {head_dim}.")
        times = int(log2(hf.subsampling_factor)) if hf.subsampling_factor > 1 else 0
        factor = hf.subsampling_conv_stride**times
        if not times or hf.num_mel_bins % factor:
            raise ConfigError(
                f"encoder.num_mel_bins={hf.num_mel_bins} is not divisible by the subsampling: "
                f"subsampling_conv_stride={hf.subsampling_conv_stride}, log2 of "
                f"subsampling_factor={hf.subsampling_factor} times."
            )
        return cls(
            layer=_layer(hf),
            layers=hf.num_hidden_layers,
            mels=hf.num_mel_bins,
            channels=hf.subsampling_conv_channels,
            size=hf.subsampling_conv_kernel_size,
            stride=hf.subsampling_conv_stride,
            times=times,
            scale=sqrt(hf.hidden_size) if hf.scale_input else 1.0,
            position_dropout=hf.dropout_positions,
        )


def _layer(hf: Any) -> ConformerConfig:
    return ConformerConfig(
        width=hf.hidden_size,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.hidden_act", hf.hidden_act),
        attention_bias=hf.attention_bias,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
        layer_drop=hf.layerdrop,
        size=hf.conv_kernel_size,
        causal=False,
        norm="batch",
        positions="relative",
        convolution_bias=hf.convolution_bias,
        last_norm=False,
        input_dropout=hf.dropout,
    )


class Subsampler(nn.Module):
    """Convolutions over frames and mels, each of which strides both ways."""

    config: ParakeetConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames mels"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames2 features"], Int[Array, " batch"] | None]:
        """Returns the shortened sequence and its real lengths."""
        config = self.config

        def silenced(x):
            if lengths is None:
                return x
            return jnp.where(frame_mask(lengths, x.shape[1])[:, :, None, None], x, 0)

        x = x[..., None]  # [batch, frames, mels, channels]
        x = silenced(x) if config.padding == "invariant" else x
        shape = (config.channels, config.size, config.stride)
        for time in range(config.times):
            index = 3 * time  # upstream numbers activations as well
            strided = PlaneConvolution(*shape, name=f"layers_{index - 1 if time else 0}")
            x = strided(x)
            if lengths is not None:
                lengths = reach(lengths, config.size, config.stride)
            x = silenced(x)
            if time:
                pointwise = PointwiseConvolution(config.channels, name=f"layers_{index}")
                x = silenced(pointwise(x))
            x = jax.nn.relu(x)
        return x.swapaxes(2, 3).reshape(*x.shape[:2], -1), lengths


class Parakeet(nn.Module):
    """Log-mel frames in, states out."""

    config: ParakeetConfig

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "batch frames mels"],
        mask: Bool[Array, "batch frames"] | None = None,
    ) -> tuple[Float[Array, "batch source width"], Bool[Array, "batch source"] | None]:
        """Encodes log-mel frames; see ``at_least_one_frame`` about clips without a frame.

        Returns:
            States, 0 where they are not real, and which of them are; None if ``mask`` is None and
            there are frames.
        """
        config, layer = self.config, self.config.layer
        features, mask = at_least_one_frame(features, mask, 1)
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        x, lengths = Subsampler(config, name="feature_encoder")(features, lengths)
        x = Dense(layer.width, name="feature_projection")(x) * config.scale
        real = None if lengths is None else frame_mask(lengths, x.shape[1])
        angles: Any = layer.read_positions(x.shape[1])
        positions = Dropout(config.position_dropout)(angles)
        seen = None if real is None else real[:, None, None, :]
        encoder = ConformerEncoder(layer, config.layers, name="transformer")
        x = encoder(x, seen, real, positions)
        return x if real is None else jnp.where(real[:, :, None], x, 0), real


def regular(state: State, config: ParakeetConfig) -> State:
    """Drops the counters of batch norms."""
    del config
    return without_counters(state)


def irregular(state: State, config: ParakeetConfig) -> State:
    """Gives batch norms their counters back."""
    del config
    return with_counters(state)


_LAYER = "layers.{}."

NAMES = {
    "feature_encoder/layers_{}": "subsampling.layers.{}",
    "feature_projection": "subsampling.linear",
    "transformer/layers_{}/first_feed_forward/up": _LAYER + "feed_forward1.linear1",
    "transformer/layers_{}/first_feed_forward/down": _LAYER + "feed_forward1.linear2",
    "transformer/layers_{}/first_feed_forward_norm": _LAYER + "norm_feed_forward1",
    "transformer/layers_{}/self_attention/query": _LAYER + "self_attn.q_proj",
    "transformer/layers_{}/self_attention/key": _LAYER + "self_attn.k_proj",
    "transformer/layers_{}/self_attention/value": _LAYER + "self_attn.v_proj",
    "transformer/layers_{}/self_attention/out": _LAYER + "self_attn.o_proj",
    "transformer/layers_{}/self_attention_norm": _LAYER + "norm_self_att",
    "transformer/layers_{}/relative_positions/projection": _LAYER + "self_attn.relative_k_proj",
    "transformer/layers_{}/relative_positions/content_bias": _LAYER + "self_attn.bias_u",
    "transformer/layers_{}/relative_positions/position_bias": _LAYER + "self_attn.bias_v",
    "transformer/layers_{}/convolution_norm": _LAYER + "norm_conv",
    "transformer/layers_{}/convolution/up": _LAYER + "conv.pointwise_conv1",
    "transformer/layers_{}/convolution/depthwise": _LAYER + "conv.depthwise_conv",
    "transformer/layers_{}/convolution/norm": _LAYER + "conv.norm",
    "transformer/layers_{}/convolution/down": _LAYER + "conv.pointwise_conv2",
    "transformer/layers_{}/second_feed_forward/up": _LAYER + "feed_forward2.linear1",
    "transformer/layers_{}/second_feed_forward/down": _LAYER + "feed_forward2.linear2",
    "transformer/layers_{}/second_feed_forward_norm": _LAYER + "norm_feed_forward2",
    "transformer/layers_{}/out_norm": _LAYER + "norm_out",
}

PARAKEET = Family(
    config=ParakeetConfig,
    module=Parakeet,
    names=NAMES,
    aliases=((r"^encoder\.", ""),),
    unused=(r"^(ctc_head|encoder_projector|decoder|joint)\.",),
    regular=regular,
    irregular=irregular,
)
