"""What w2v-BERT 2.0 and the speech encoder of SeamlessM4T v2 have in common: all but settings."""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.audio.features import StackedFeatures
from speech_ed_flax.layers import attentive_adapter, conformer_names
from speech_ed_flax.layers.attentive_adapter import AttentiveAdapter, AttentiveAdapterConfig
from speech_ed_flax.layers.augment import SpecAugment, augment
from speech_ed_flax.layers.conformer import ConformerConfig, ConformerEncoder
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feature_encoder import at_least_one_frame, frame_mask
from speech_ed_flax.layers.feed_forward import FeedForward
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm
from speech_ed_flax.layers.sizes import surely
from speech_ed_flax.types import Array, Bool, Float, Size


@dataclass(frozen=True)
class Chunks:
    """Frames attend to those of their own chunk and of some before.

    Attributes:
        size: frames of a chunk.
        seen: chunks that a frame attends to, its own and those before; all if None.
    """

    size: int
    seen: int | None

    def mask(self, frames: Size) -> Bool[Array, "1 1 frames frames"] | None:
        """Returns which frames (last axis) each frame attends to; None if there is one chunk."""
        if surely(lambda: frames <= self.size):
            return None
        chunk = jnp.arange(frames) // self.size
        before = chunk[:, None] - chunk
        seen = before >= 0
        seen = seen if self.seen is None else seen & (before < self.seen)
        return seen[None, None]


@dataclass(frozen=True)
class Between:
    """Half of a feed-forward network with relu, between the layers and the adapter.

    Attributes:
        activation_dropout: rate inside it.
        dropout: rate behind it.
    """

    activation_dropout: float = 0.0
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class FrameConformerConfig:
    """Shape of an encoder that hears stacked filter banks.

    Attributes:
        layer: of the conformer.
        layers: number of conformer layers.
        mels: numbers in a frame of features.
        projection_dropout: rate after the projection of the features.
        mask_embedding: whether the checkpoint holds the vector that SpecAugment writes.
        augment: what SpecAugment masks while training.
        chunks: that attention is confined to, if any.
        between: half of a feed-forward network behind the layers, if any.
        adapter: what shortens the output, if anything.
        last_norm: whether the output is normalised.
        padding: ``"exact"`` computes what transformers computes: the adapter hears padding.
            ``"invariant"`` gives every clip the output it has alone.
    """

    layer: ConformerConfig
    layers: int
    mels: int
    projection_dropout: float
    mask_embedding: bool = False
    augment: SpecAugment
    chunks: Chunks | None = None
    between: Between | None
    adapter: AttentiveAdapterConfig | None
    last_norm: bool = False
    padding: Literal["exact", "invariant"] = "exact"

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.adapter.width if self.adapter else self.layer.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the shortest input that gives a state, without the batch: frames and mels."""
        return (1, self.mels)

    @property
    def features(self) -> StackedFeatures:
        """What a new encoder hears, before it is fitted to ``input_shape``."""
        return StackedFeatures()

    def frames(self, frames: Any) -> Any:
        """Returns the states of clips of so many frames, integers of any shape."""
        return frames if self.adapter is None else self.adapter.frames(frames)


class FrameConformer(nn.Module):
    """Stacked filter banks in, states out."""

    config: FrameConformerConfig

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
        config, layer = self.config, self.config.layer
        features, mask = at_least_one_frame(features, mask, 1)
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        x = self._project(features, lengths)
        real = None if lengths is None else frame_mask(lengths, x.shape[1])
        seen = None if real is None else real[:, None, None, :]
        if real is not None:
            x = jnp.where(real[:, :, None], x, 0)
        chunks = config.chunks.mask(x.shape[1]) if config.chunks else None
        if chunks is not None:
            seen = chunks if seen is None else chunks & seen
        encoder = ConformerEncoder(layer, config.layers, name="transformer")
        x = encoder(x, seen, real, layer.read_positions(x.shape[1]))
        if config.between:
            between = FeedForward(
                layer.width,
                layer.up_width,
                "relu",
                config.between.activation_dropout,
                name="between",
            )
            x = x + 0.5 * Dropout(config.between.dropout)(between(x))
        if config.adapter:
            adapter = AttentiveAdapter(
                config.adapter, layer.attention, config.padding, name="adapter"
            )
            x, lengths = adapter(x, lengths)
        if config.last_norm:
            x = LayerNorm(TORCH_EPSILON, name="norm")(x)
        return x, None if lengths is None else frame_mask(lengths, x.shape[1])

    def _project(self, features, lengths):
        """Normalises, projects and, in training, masks features."""
        config = self.config
        x = LayerNorm(config.layer.epsilon, name="feature_norm")(features)
        x = Dense(config.layer.width, name="feature_projection")(x)
        x = Dropout(config.projection_dropout)(x)
        if not config.mask_embedding:
            return x
        filling = self.param("mask_embedding", nn.initializers.uniform(1.0), x.shape[-1:])
        return augment(self, x, lengths, config.augment, filling)


NAMES = (
    attentive_adapter.NAMES
    | conformer_names.NAMES
    | {
        "mask_embedding": "masked_spec_embed",
        "feature_norm": "feature_projection.layer_norm",
        "feature_projection": "feature_projection.projection",
        "transformer/layers_{}/convolution/norm": conformer_names.LAYER
        + "conv_module.depthwise_layer_norm",
        "between/up": "intermediate_ffn.intermediate_dense",
        "between/down": "intermediate_ffn.output_dense",
        "norm": "inner_layer_norm",
    }
)
"""Rows of a family's table."""
