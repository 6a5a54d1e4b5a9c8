"""What wav2vec 2.0 and its kin have in common: all but the positions and the transformer."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.layers import adapter, feature_encoder
from speech_ed_flax.layers.adapter import Adapter, AdapterConfig
from speech_ed_flax.layers.augment import SpecAugment, augment
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feature_encoder import (
    FeatureEncoder,
    FeatureEncoderConfig,
    at_least_one_frame,
    frame_mask,
)
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import LayerNorm
from speech_ed_flax.layers.transformer import LayerConfig
from speech_ed_flax.types import Array, Bool, Float


@dataclass(frozen=True, kw_only=True)
class WaveformEncoderConfig:
    """Shape of an encoder that hears waveforms of 16 kHz.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        front: convolutions from samples to frames.
        projection: whether the features are projected to the width of the layers.
        projection_norm: whether they are normalised before.
        projection_epsilon: of that norm; None is that of the layers.
        projection_dropout: rate after the projection.
        mask_embedding: whether the checkpoint holds the vector that SpecAugment writes.
        augment: what SpecAugment masks while training.
        adapter: convolutions after the transformer, if any.
        padding: ``"exact"`` computes what transformers computes, padding included: the group norm
            counts padded frames and the adapter reads them. ``"invariant"`` gives every clip the
            output it has alone, whatever it is padded to.
    """

    layer: LayerConfig
    layers: int
    front: FeatureEncoderConfig
    projection: bool = True
    projection_norm: bool = True
    projection_epsilon: float | None = None
    projection_dropout: float = 0.0
    mask_embedding: bool
    augment: SpecAugment
    adapter: AdapterConfig | None = None
    padding: Literal["exact", "invariant"] = "exact"

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.adapter.width if self.adapter else self.layer.width

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the shortest input that gives a state, without the batch."""
        return (self.front.receptive_field,)

    @property
    def features(self) -> WaveformFeatures:
        """What a new encoder hears; those with a group norm were trained without a mask."""
        return WaveformFeatures(return_attention_mask=self.front.norm == "layer")

    def frames(self, samples: Any) -> Any:
        """Returns the states of clips of so many samples, integers of any shape."""
        frames = self.front.frames(samples)
        return frames if self.adapter is None else self.adapter.frames(frames)

    @staticmethod
    def shared(hf: Any, norm: str | None = None) -> dict[str, Any]:
        """Reads the names that the configs of all these families share, as our fields.

        Args:
            hf: config of transformers.
            norm: of the feature encoder, for families that have one form only.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return {
            "layers": hf.num_hidden_layers,
            "front": FeatureEncoderConfig.from_hf(hf, norm),
            "projection_dropout": hf.feat_proj_dropout,
            "mask_embedding": hf.mask_time_prob > 0 or hf.mask_feature_prob > 0,
            "augment": SpecAugment.from_hf(hf),
            "adapter": AdapterConfig.from_hf(hf),
        }


def layer_from_hf(hf: Any, pre_norm: bool) -> LayerConfig:
    """Reads the transformer layer of a family by the names that they share."""
    return LayerConfig(
        width=hf.hidden_size,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.hidden_act", hf.hidden_act),
        pre_norm=pre_norm,
        epsilon=hf.layer_norm_eps,
        # Upstream gives only its stable layers the attention adapter and ignores it elsewhere.
        bottleneck=getattr(hf, "adapter_attn_dim", None) if pre_norm else None,
        dropout=hf.hidden_dropout,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
        layer_drop=hf.layerdrop,
    )


class WaveformEncoder(nn.Module):
    """Waveform in, states out.

    A family's ``transform`` does what stands between the projected features and the adapter.

    Attributes:
        silences_padding: whether upstream sets padded features to 0 before ``transform``.
    """

    silences_padding: ClassVar[bool] = True

    config: Any

    def transform(
        self, x: Float[Array, "batch frames width"], real: Bool[Array, "batch frames"] | None
    ) -> Float[Array, "batch frames width"]:
        """Adds positions to the features and runs the transformer.

        Args:
            x: projected features; 0 where they are not real, if padding is silenced.
            real: which of them are real; None if all are.
        """
        raise TypeError(f"{type(self).__name__} must define transform.")

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
        waveform, mask = at_least_one_frame(waveform, mask, config.front.receptive_field)
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        front = FeatureEncoder(config.front, config.padding, name="feature_encoder")
        x, lengths = front(waveform, lengths)
        if config.projection_norm:
            epsilon = config.projection_epsilon or config.layer.epsilon
            x = LayerNorm(epsilon, name="feature_norm")(x)
        if config.projection:
            x = Dense(config.layer.width, name="feature_projection")(x)
        x = Dropout(config.projection_dropout)(x)
        if config.mask_embedding:
            filling = self.param("mask_embedding", nn.initializers.uniform(1.0), x.shape[-1:])
            x = augment(self, x, lengths, config.augment, filling)
        real = None if lengths is None else frame_mask(lengths, x.shape[1])
        if real is not None and (self.silences_padding or config.padding == "invariant"):
            x = jnp.where(real[:, :, None], x, 0)
        x = self.transform(x, real)
        if config.adapter:
            x, lengths = Adapter(config.adapter, config.padding, name="adapter")(x, lengths)
        return x, None if lengths is None else frame_mask(lengths, x.shape[1])


LAYER = "encoder.layers.{}."

NAMES = (
    feature_encoder.NAMES
    | adapter.NAMES
    | {
        "mask_embedding": "masked_spec_embed",
        "feature_norm": "feature_projection.layer_norm",
        "feature_projection": "feature_projection.projection",
        "transformer/norm": "encoder.layer_norm",
        "transformer/layers_{}/self_attention/query": LAYER + "attention.q_proj",
        "transformer/layers_{}/self_attention/key": LAYER + "attention.k_proj",
        "transformer/layers_{}/self_attention/value": LAYER + "attention.v_proj",
        "transformer/layers_{}/self_attention/out": LAYER + "attention.out_proj",
        "transformer/layers_{}/self_attention_norm": LAYER + "layer_norm",
        "transformer/layers_{}/feed_forward/up": LAYER + "feed_forward.intermediate_dense",
        "transformer/layers_{}/feed_forward/down": LAYER + "feed_forward.output_dense",
        "transformer/layers_{}/feed_forward_norm": LAYER + "final_layer_norm",
        "transformer/layers_{}/bottleneck/norm": LAYER + "adapter_layer.norm",
        "transformer/layers_{}/bottleneck/down": LAYER + "adapter_layer.linear_1",
        "transformer/layers_{}/bottleneck/up": LAYER + "adapter_layer.linear_2",
    }
)
"""Rows of a family's table."""

UNUSED = (
    *(r"^lm_head\.", r"^quantizer\.", r"^project_(q|hid)\.", r"^(classifier|projector)\."),
    *(r"^layer_weights$", r"^tdnn\.", r"^objective\.", r"^feature_extractor\.(weight|bias)$"),
)
"""Tensors of such checkpoints that no encoder has a use for: heads for transcripts, codes, labels
and speakers."""

FRESH = (r"^mask_embedding$", r"^adapter/")
"""Parameters that such checkpoints may lack."""


def without_unread_mask(state: Any, config: WaveformEncoderConfig) -> Any:
    """Drops a SpecAugment vector that the config does not use."""
    if config.mask_embedding:
        return state
    unread = NAMES["mask_embedding"]
    return {name: tensor for name, tensor in state.items() if name.split(".")[-1] != unread}
