"""The adapter of w2v-BERT 2.0 (Seamless Communication, 2023): convolutions that are attended."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.attention import Attention
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feature_encoder import frame_mask
from speech_ed_flax.layers.feed_forward import FeedForward
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.types import Array, Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class AttentiveAdapterConfig:
    """Layers that shorten the encoder's output and attend to what is left.

    Attributes:
        width: of the output; a projection comes first where it differs from the encoder's.
        layers: number of layers.
        size: of the kernels; ``stride`` is that of the convolutions.
        heads: of the attention.
        up_width: of the feed-forward network.
        activation: of the feed-forward network.
        epsilon: of every norm.
        dropout: rate behind feed-forward.
        attended_dropout: rate behind the attention.
        attention_dropout: rate on the attention weights.
        activation_dropout: rate inside the feed-forward network.
    """

    width: int
    layers: int
    size: int
    stride: int
    heads: int
    up_width: int
    activation: str
    epsilon: float
    dropout: float
    attended_dropout: float
    attention_dropout: float
    activation_dropout: float

    def __post_init__(self):
        """Checks that heads divide the width, and that the mask fits what is convolved.

        Raises:
            ConfigError: naming what is wrong.
        """
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} is not divisible by {self.heads} heads.")
        if self.size // 2 != self.stride // 2:
            raise ConfigError(
                f"an adapter of kernel size {self.size} and stride {self.stride} is not supported: "
                "upstream's mask is then longer or shorter than the states (use sizes that have "
                "equal halves, rounded down)."
            )

    def shortened(self, frames: Any) -> Any:
        """Returns what one layer leaves of so many frames, integers of any shape."""
        left = (frames + 2 * (self.stride // 2) - self.size) // self.stride + 1
        return left * (frames > 0)

    def frames(self, frames: Any) -> Any:
        """Returns what all layers leave of so many frames, integers of any shape."""
        for _ in range(self.layers):
            frames = self.shortened(frames)
        return frames


class AttentiveAdapterLayer(nn.Module):
    """A convolution that is attended to, another one beside it, and feed-forward.

    Attributes:
        config: of the adapter.
        kernel: of the attention; see ``attend``.
    """

    config: AttentiveAdapterConfig
    kernel: str

    def setup(self):
        """Creates the sublayers."""
        config = self.config
        shape = (2 * config.width, config.size, config.stride, config.stride // 2)
        self.beside = Convolution(*shape)
        self.beside_norm = LayerNorm(config.epsilon)
        self.attended = Convolution(*shape)
        self.attended_norm = LayerNorm(config.epsilon)
        self.self_attention = Attention(
            config.width, config.heads, dropout=config.attention_dropout, kernel=self.kernel
        )
        self.feed_forward = FeedForward(
            config.width, config.up_width, config.activation, config.activation_dropout
        )
        self.feed_forward_norm = LayerNorm(config.epsilon)
        self.drop = Dropout(config.dropout)
        self.drop_attended = Dropout(config.attended_dropout)

    def __call__(
        self,
        x: Float[Array, "batch frames width"],
        silenced: Bool[Array, "batch frames"] | None,
        left: Int[Array, " batch"] | None,
    ) -> Float[Array, "batch frames2 width"]:
        """Shortens ``x``.

        Args:
            x: frames.
            silenced: False for frames that convolutions are not to hear; all are heard if None.
            left: how many frames of each clip are real after it; all if None.
        """

        def shorten(convolution, norm):
            y = norm(x)
            y = y if silenced is None else jnp.where(silenced[:, :, None], y, 0)
            return nn.glu(convolution(y))

        y = shorten(self.attended, self.attended_norm)
        seen = None if left is None else frame_mask(left, y.shape[1])[:, None, None, :]
        y = self.self_attention(y, self.self_attention.project(y), seen)
        y = shorten(self.beside, self.beside_norm) + self.drop_attended(y)
        return y + self.drop(self.feed_forward(self.feed_forward_norm(y)))


class AttentiveAdapter(nn.Module):
    """Layers that shorten the sequence, each by its stride.

    Attributes:
        config: of the adapter.
        kernel: of the attention; see ``attend``.
        padding: ``"exact"`` or ``"invariant"``: whether convolutions hear padded frames.
    """

    config: AttentiveAdapterConfig
    kernel: str
    padding: str

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch frames width"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames2 width2"], Int[Array, " batch"] | None]:
        """Returns the shortened sequence and its real lengths."""
        config = self.config
        if x.shape[-1] != config.width:
            x = Dense(config.width, name="projection")(x)
            x = LayerNorm(config.epsilon, name="norm")(x)
        for index in range(config.layers):
            layer = AttentiveAdapterLayer(config, self.kernel, name=f"layers_{index}")
            if lengths is None:
                x = layer(x, None, None)
                continue
            real = frame_mask(lengths, x.shape[1]) if self.padding == "invariant" else None
            lengths = config.shortened(lengths)
            x = layer(x, real, lengths)
        return x, lengths


LAYER = "adapter.layers.{}."

NAMES = {
    "adapter/projection": "adapter.proj",
    "adapter/norm": "adapter.proj_layer_norm",
    "adapter/layers_{}/beside": LAYER + "residual_conv",
    "adapter/layers_{}/beside_norm": LAYER + "residual_layer_norm",
    "adapter/layers_{}/attended": LAYER + "self_attn_conv",
    "adapter/layers_{}/attended_norm": LAYER + "self_attn_layer_norm",
    "adapter/layers_{}/self_attention/query": LAYER + "self_attn.linear_q",
    "adapter/layers_{}/self_attention/key": LAYER + "self_attn.linear_k",
    "adapter/layers_{}/self_attention/value": LAYER + "self_attn.linear_v",
    "adapter/layers_{}/self_attention/out": LAYER + "self_attn.linear_out",
    "adapter/layers_{}/feed_forward/up": LAYER + "ffn.intermediate_dense",
    "adapter/layers_{}/feed_forward/down": LAYER + "ffn.output_dense",
    "adapter/layers_{}/feed_forward_norm": LAYER + "ffn_layer_norm",
}
"""Rows of a family's table."""
