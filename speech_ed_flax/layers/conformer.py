"""Conformer layers (Gulati et al., 2020) and stacks of them, that serve every family."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.layers.attention import Attention
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.depthwise import depthwise
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, FeedForward
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm, StoredNorm
from speech_ed_flax.layers.placement import split_rows
from speech_ed_flax.layers.relative_positions import (
    ClippedDistances,
    RelativePositions,
    rotary_rates,
    rotate,
    rotations,
    sinusoids,
)
from speech_ed_flax.layers.transformer import LayerConfig, encode_by_layers
from speech_ed_flax.types import Array, Bool, Float, Size


@dataclass(frozen=True, kw_only=True)
class ConformerConfig(LayerConfig):
    """Shape of one conformer layer.

    ``epsilon`` is that of the norm after the stack, ``dropout`` the rate behind feed-forward, which
    has biases where attention has.

    Attributes:
        size: of the kernels of the depthwise convolution.
        causal: whether it sees earlier frames only.
        norm: behind it: ``"batch"``, by stored statistics, or ``"layer"``.
        positions: ``"relative"`` (Transformer-XL), ``"relative_key"`` (Shaw), ``"rotary"`` or None.
        left: distance to a frame before, from which on all are alike to ``"relative_key"``.
        right: the same, to a frame behind.
        rotary_base: wavelengths of ``"rotary"`` are 1 to so many, times ``2 pi``.
        convolution_bias: whether convolutions have.
        layer_epsilon: of the norms within the layer.
        last_norm: whether there is a norm after the stack.
        input_dropout: rate before the stack.
        attended_dropout: rate behind the attention.
        convolution_dropout: rate behind the convolutions.
    """

    pre_norm: bool = True
    size: int
    causal: bool
    norm: Literal["batch", "layer"]
    positions: Literal["relative", "relative_key", "rotary"] | None
    left: int | None = None
    right: int | None = None
    rotary_base: int = 10_000
    convolution_bias: bool = False
    layer_epsilon: float = TORCH_EPSILON
    last_norm: bool
    input_dropout: float = 0.0
    attended_dropout: float = 0.0
    convolution_dropout: float = 0.0

    def read_positions(
        self, frames: Size, rates: Float[Any, " half"] | None = None
    ) -> Float[Array, "distances width"] | tuple[Float[Array, "frames half"], ...] | None:
        """Returns what every layer reads of where frames stand; None if nothing but their order.

        Args:
            frames: that there are.
            rates: of rotary positions; those of ``rotary_base`` if None.
        """
        if self.positions == "relative":
            return sinusoids(frames, self.width)
        if self.positions == "rotary":
            if rates is None:
                rates = rotary_rates(self.width // self.heads, self.rotary_base)
            return rotations(frames, rates)
        return None


class DepthwiseConvolution(nn.Module):
    """A convolution of every channel on its own; as many frames come out as go in."""

    size: int
    causal: bool
    use_bias: bool

    @nn.compact
    def __call__(self, x: Float[Array, "batch frames width"]) -> Float[Array, "batch frames width"]:
        """Convolves ``x`` over time."""
        width, before = x.shape[-1], self.size - 1 if self.causal else self.size // 2
        kernel = self.param("kernel", nn.initializers.he_normal(), (self.size, 1, width))
        x = depthwise(x, kernel, (before, self.size - 1 - before))
        return x + self.param("bias", nn.initializers.zeros, (width,)) if self.use_bias else x


class ConvolutionModule(nn.Module):
    """A gated linear unit and a depthwise convolution, between products with every frame."""

    config: ConformerConfig

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], real: Bool[Array, "batch frames"] | None
    ) -> Float[Array, "batch frames width"]:
        """Convolves ``x``; frames that are not ``real`` are silent for those that are."""
        config = self.config
        width, bias = config.width, config.convolution_bias
        x = nn.glu(Convolution(2 * width, 1, use_bias=bias, name="up")(x))
        if real is not None:
            x = jnp.where(real[:, :, None], x, 0)
        x = DepthwiseConvolution(config.size, config.causal, bias, name="depthwise")(x)
        norm = StoredNorm if config.norm == "batch" else LayerNorm
        x = norm(config.layer_epsilon, name="norm")(x)
        x = ACTIVATIONS[config.activation](x)
        return Convolution(width, 1, use_bias=bias, name="down")(x)


class ConformerLayer(nn.Module):
    """Half of a feed-forward network, attention, convolution, and the other half."""

    config: ConformerConfig
    index: int = 0

    def setup(self):
        """Creates the sublayers."""
        config = self.config
        self.first_feed_forward = self._feed_forward()
        self.first_feed_forward_norm = LayerNorm(config.layer_epsilon)
        self.self_attention = Attention(
            config.width,
            config.heads,
            dropout=config.attention_dropout,
            kernel=config.attention,
            use_bias=config.attention_bias,
        )
        self.self_attention_norm = LayerNorm(config.layer_epsilon)
        if config.positions == "relative":
            self.relative_positions = RelativePositions()
        elif config.positions == "relative_key":
            self.relative_positions = ClippedDistances(config.left or 0, config.right or 0)
        self.convolution = ConvolutionModule(config)
        self.convolution_norm = LayerNorm(config.layer_epsilon)
        self.second_feed_forward = self._feed_forward()
        self.second_feed_forward_norm = LayerNorm(config.layer_epsilon)
        self.out_norm = LayerNorm(config.layer_epsilon)
        self.drop = Dropout(config.dropout)
        self.drop_attended = Dropout(config.attended_dropout)
        self.drop_convolved = Dropout(config.convolution_dropout)

    def _feed_forward(self) -> FeedForward:
        config = self.config
        return FeedForward(
            config.width,
            config.up_width,
            config.activation,
            config.activation_dropout,
            config.attention_bias,
        )

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        seen: Bool[Array, "#batch #heads #frames frames"] | None,
        silenced: Bool[Array, "batch frames"] | None,
        positions: Any,
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``.

        Args:
            x: frames.
            seen: which frames each of them attends to; all if None.
            silenced: False for frames that the convolution is not to hear; all are heard if None.
            positions: what ``ConformerConfig.read_positions`` returns.
        """
        y = self.first_feed_forward(self.first_feed_forward_norm(x))
        x = split_rows(x + 0.5 * self.drop(y))
        y = self._attend(self.self_attention_norm(x), seen, positions)
        x = split_rows(x + self.drop_attended(y))
        y = self.convolution(self.convolution_norm(x), silenced)
        x = split_rows(x + self.drop_convolved(y))
        y = self.second_feed_forward(self.second_feed_forward_norm(x))
        return self.out_norm(split_rows(x + 0.5 * self.drop(y)))

    def _attend(self, x, seen, positions):
        attention, kind = self.self_attention, self.config.positions
        if kind == "rotary":
            turned = rotate(x, positions)
            return attention(turned, attention.project(turned, x), seen)
        key_value = attention.project(x)
        if kind is None:
            return attention(x, key_value, seen)
        relative: Any = self.relative_positions
        if kind == "relative_key":
            return attention(x, key_value, seen, relative)
        return attention(
            x, key_value, seen, lambda query: relative(query, key_value.key, positions)
        )


class ConformerEncoder(nn.Module):
    """A stack of conformer layers, with a last norm if it has one.

    Attributes:
        config: of every layer.
        depth: number of layers.
    """

    config: ConformerConfig
    depth: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        seen: Bool[Array, "#batch #heads #frames frames"] | None,
        silenced: Bool[Array, "batch frames"] | None,
        positions: Any,
    ) -> Float[Array, "batch frames width"]:
        """Transforms ``x``; arguments as ``ConformerLayer`` has them."""
        x = Dropout(self.config.input_dropout)(x)
        x = encode_by_layers(self, ConformerLayer, x, seen, silenced, positions)
        return LayerNorm(self.config.epsilon, name="norm")(x) if self.config.last_norm else x
