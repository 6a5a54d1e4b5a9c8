"""The encoder of Moonshine (Jeffries et al., 2024): waveforms in, a state every 24 ms out.

Behaviour matched: transformers 5.23 ``MoonshineEncoder``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feature_encoder import at_least_one_frame, frame_mask
from speech_ed_flax.layers.feed_forward import FeedForward, check_activation, exact_gelu
from speech_ed_flax.layers.norm import ScaleNorm, TimeNorm
from speech_ed_flax.layers.transformer import EncoderLayer, LayerConfig, TransformerEncoder
from speech_ed_flax.layers.turned import TurnedAttention
from speech_ed_flax.types import Array, Bool, Float, Int

_SIZES, _STRIDES = (127, 7, 3), (64, 3, 2)
"""Of the convolutions; transformers has no setting for them."""


@dataclass(frozen=True)
class MoonshineLayerConfig(LayerConfig):
    """Shape of one layer.

    Attributes:
        rates: radians a frame by which pairs of numbers of queries and keys are turned; what is
            left of each head is not.
    """

    rates: tuple[float, ...] = ()


@dataclass(frozen=True)
class MoonshineConfig:
    """Shape of a Moonshine encoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        padding: ``"exact"`` computes what transformers computes: padding counts in the norm of the
            convolutions, and states that hear a little of it are real. ``"invariant"`` gives every
            clip the output it has alone.
    """

    layer: MoonshineLayerConfig
    layers: int
    padding: Literal["exact", "invariant"] = "exact"

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.layer.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the shortest input that gives a state, without the batch."""
        (first, second, third), (stride, other, _) = _SIZES, _STRIDES
        return (((third - 1) * other + second - 1) * stride + first,)

    @property
    def features(self) -> WaveformFeatures:
        """What a new encoder hears."""
        return WaveformFeatures(do_normalize=False, return_attention_mask=True)

    def frames(self, samples: Any) -> Any:
        """Returns the states of clips of so many samples, integers of any shape."""
        for size, stride in zip(_SIZES, _STRIDES, strict=True):
            samples = (samples >= size) * ((samples - size) // stride + 1)
        return samples

    @classmethod
    def from_hf(cls, hf: Any) -> "MoonshineConfig":
        """Reads a ``MoonshineConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        heads = hf.encoder_num_attention_heads
        head_dim = hf.hidden_size // heads
        for name, value, only in (
            ("encoder_num_key_value_heads", hf.encoder_num_key_value_heads, heads),
            ("head_dim", getattr(hf, "head_dim", head_dim), head_dim),
            ("rope_parameters['rope_type']", hf.rope_parameters["rope_type"], "default"),
        ):
            if value != only:
                raise ConfigError(f"encoder.{name}={value!r} is not supported: use {only!r}.")
        turned = int(head_dim * hf.rope_parameters.get("partial_rotary_factor", 1.0))
        exponents = np.arange(0, turned, 2, dtype=np.float32) / np.float32(max(turned, 1))
        rates = 1 / np.float32(hf.rope_parameters["rope_theta"]) ** exponents
        layer = MoonshineLayerConfig(
            width=hf.hidden_size,
            heads=heads,
            up_width=hf.intermediate_size,
            activation=check_activation("encoder.encoder_hidden_act", hf.encoder_hidden_act),
            pre_norm=True,
            attention_dropout=hf.attention_dropout,
            attention_bias=hf.attention_bias,
            rates=tuple(rates.tolist()),
        )
        return cls(layer=layer, layers=hf.encoder_num_hidden_layers)


class FrontEnd(nn.Module):
    """Three convolutions, and a norm of the first one's output over the whole clip."""

    width: int
    padding: str

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"] | None
    ) -> Float[Array, "batch frames width"]:
        """Convolves a waveform."""
        (first, *sizes), (stride, *strides) = _SIZES, _STRIDES
        x = Convolution(self.width, first, stride, use_bias=False, name="first")(
            waveform[..., None]
        )
        counted = None
        if lengths is not None and self.padding == "invariant":
            counted = frame_mask((lengths - first) // stride + 1, x.shape[1])
        x = TimeNorm(axes=(1, 2), name="norm")(jnp.tanh(x), counted)
        x = exact_gelu(Convolution(2 * self.width, sizes[0], strides[0], name="second")(x))
        return exact_gelu(Convolution(self.width, sizes[1], strides[1], name="third")(x))


class MoonshineLayer(EncoderLayer):
    """An encoder layer with turned attention, and norms without biases."""

    config: MoonshineLayerConfig

    def setup(self):
        """Creates the sublayers."""
        config = self.config
        self.self_attention = TurnedAttention(
            config.width,
            config.heads,
            dropout=config.attention_dropout,
            kernel=config.attention,
            use_bias=config.attention_bias,
            rates=config.rates,
        )
        self.self_attention_norm = ScaleNorm(config.epsilon)
        self.feed_forward = FeedForward(config.width, config.up_width, config.activation)
        self.feed_forward_norm = ScaleNorm(config.epsilon)
        self.drop = Dropout(config.dropout)


class Moonshine(nn.Module):
    """Waveform in, states out."""

    config: MoonshineConfig

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch samples"],
        mask: Bool[Array, "batch samples"] | None = None,
    ) -> tuple[Float[Array, "batch frames width"], Bool[Array, "batch frames"] | None]:
        """Encodes a waveform of 16 kHz; see ``at_least_one_frame`` about clips that are short.

        Returns:
            States, and which of them are real; None if ``mask`` is None and no clip is short.
        """
        config = self.config
        waveform, mask = at_least_one_frame(waveform, mask, config.input_shape[0])
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        x = FrontEnd(config.width, config.padding, name="feature_encoder")(waveform, lengths)
        real = None
        if mask is not None:
            frames = config.frames(lengths)
            real = frame_mask(frames, x.shape[1])
            if config.padding == "exact":
                # Upstream: what begins inside the clip is real, though its end hears padding.
                begins = mask[:, :: int(np.prod(_STRIDES))][:, : x.shape[1]]
                real = begins & (frames > 0)[:, None]
            else:
                x = jnp.where(real[:, :, None], x, 0)
        stack = TransformerEncoder(
            config.layer, config.layers, MoonshineLayer, ScaleNorm, name="transformer"
        )
        return stack(x, real), real


_LAYER = "layers.{}."

NAMES = {
    "feature_encoder/first": "conv1",
    "feature_encoder/norm": "groupnorm",
    "feature_encoder/second": "conv2",
    "feature_encoder/third": "conv3",
    "transformer/norm": "layer_norm",
    "transformer/layers_{}/self_attention/query": _LAYER + "self_attn.q_proj",
    "transformer/layers_{}/self_attention/key": _LAYER + "self_attn.k_proj",
    "transformer/layers_{}/self_attention/value": _LAYER + "self_attn.v_proj",
    "transformer/layers_{}/self_attention/out": _LAYER + "self_attn.o_proj",
    "transformer/layers_{}/self_attention_norm": _LAYER + "input_layernorm",
    "transformer/layers_{}/feed_forward/up": _LAYER + "mlp.fc1",
    "transformer/layers_{}/feed_forward/down": _LAYER + "mlp.fc2",
    "transformer/layers_{}/feed_forward_norm": _LAYER + "post_attention_layernorm",
}

MOONSHINE = Family(
    config=MoonshineConfig,
    module=Moonshine,
    names=NAMES,
    aliases=((r"^(model\.)?encoder\.", ""),),
    unused=(r"^(model\.)?decoder\.", r"^proj_out\."),
)
