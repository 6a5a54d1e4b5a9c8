"""wav2vec 2.0 (Baevski et al., 2020) and HuBERT (Hsu et al., 2021), in all their published forms.

Behaviour matched: transformers 5.23 ``Wav2Vec2Model`` and ``HubertModel``.
"""

from dataclasses import dataclass
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.augment import SpecAugment, augment
from speech_ed_flax.layers.convolution import Convolution, PositionalConvolution
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, check_activation
from speech_ed_flax.layers.linear import Dense
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm, TimeNorm
from speech_ed_flax.layers.transformer import LayerConfig, TransformerEncoder
from speech_ed_flax.types import Array, Bool, Float, Int, State


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


@dataclass(frozen=True)
class Wav2Vec2Config:
    """Shape of a wav2vec 2.0 or HuBERT encoder.

    Attributes:
        layer: of the transformer.
        layers: number of transformer layers.
        conv_widths: of the feature encoder's convolutions; ``conv_sizes`` and ``conv_strides``
            go with them.
        conv_bias: whether they have biases.
        conv_norm: ``"group"`` normalises the first convolution over time, ``"layer"`` all of them
            over channels.
        conv_activation: after each of them, and after the positional convolution.
        projection_norm: whether the features are normalised before they are projected.
        projection_dropout: rate after the projection.
        position_size: kernel of the positional convolution; ``position_groups`` its groups.
        position_batch_norm: whether it has a batch norm and no weight norm.
        mask_embedding: whether the checkpoint holds the vector that SpecAugment writes.
        augment: what SpecAugment masks while training.
        adapter: convolutions after the transformer, if any.
        padding: ``"exact"`` computes what transformers computes, padding included: the group norm
            counts padded frames and the adapter reads them. ``"invariant"`` gives every clip the
            output it has alone, whatever it is padded to.
    """

    layer: LayerConfig
    layers: int
    conv_widths: tuple[int, ...]
    conv_sizes: tuple[int, ...]
    conv_strides: tuple[int, ...]
    conv_bias: bool
    conv_norm: str
    conv_activation: str
    projection_norm: bool
    projection_dropout: float
    position_size: int
    position_groups: int
    position_batch_norm: bool
    mask_embedding: bool
    augment: SpecAugment
    adapter: AdapterConfig | None
    padding: Literal["exact", "invariant"] = "exact"

    @property
    def width(self) -> int:
        """Width of the encoder's output."""
        return self.adapter.width if self.adapter else self.layer.width

    @property
    def receptive_field(self) -> int:
        """Samples that the first frame sees: 400 in every published model."""
        field = 1
        for size, stride in zip(
            reversed(self.conv_sizes), reversed(self.conv_strides), strict=True
        ):
            field = (field - 1) * stride + size
        return field

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the shortest input that gives a state, without the batch."""
        return (self.receptive_field,)

    def frames(self, samples: Any) -> Any:
        """Returns the states of clips of so many samples, integers of any shape."""
        for size, stride in zip(self.conv_sizes, self.conv_strides, strict=True):
            samples = np.maximum((samples - size) // stride + 1, 0)
        if self.adapter is not None:
            for _ in range(self.adapter.layers):
                samples = (samples - 1) // self.adapter.stride + 1
        return samples

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2Config":
        """Reads a ``Wav2Vec2Config`` or ``HubertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        if not len(hf.conv_dim) == len(hf.conv_kernel) == len(hf.conv_stride) > 0:
            raise ConfigError("conv_dim, conv_kernel and conv_stride must be equally long.")
        groups = hf.num_conv_pos_embedding_groups
        if groups < 1 or hf.hidden_size % groups:
            raise ConfigError(
                f"hidden_size={hf.hidden_size} is not divisible by "
                f"num_conv_pos_embedding_groups={groups}."
            )
        if hf.feat_extract_norm not in ("group", "layer"):
            raise ConfigError(
                f"encoder.feat_extract_norm={hf.feat_extract_norm!r} is not supported: "
                "use 'group' or 'layer'."
            )
        return cls(
            layer=_layer_from_hf(hf),
            layers=hf.num_hidden_layers,
            conv_widths=tuple(hf.conv_dim),
            conv_sizes=tuple(hf.conv_kernel),
            conv_strides=tuple(hf.conv_stride),
            conv_bias=hf.conv_bias,
            conv_norm=hf.feat_extract_norm,
            conv_activation=check_activation(
                "encoder.feat_extract_activation", hf.feat_extract_activation
            ),
            projection_norm=getattr(hf, "feat_proj_layer_norm", True),
            projection_dropout=hf.feat_proj_dropout,
            position_size=hf.num_conv_pos_embeddings,
            position_groups=hf.num_conv_pos_embedding_groups,
            position_batch_norm=getattr(hf, "conv_pos_batch_norm", False),
            mask_embedding=hf.mask_time_prob > 0 or hf.mask_feature_prob > 0,
            augment=SpecAugment.from_hf(hf),
            adapter=_adapter_from_hf(hf),
        )


def _layer_from_hf(hf: Any) -> LayerConfig:
    stable = hf.do_stable_layer_norm
    return LayerConfig(
        width=hf.hidden_size,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.hidden_act", hf.hidden_act),
        pre_norm=stable,
        epsilon=hf.layer_norm_eps,
        # Upstream gives only its stable layers the attention adapter and ignores it elsewhere.
        bottleneck=getattr(hf, "adapter_attn_dim", None) if stable else None,
        dropout=hf.hidden_dropout,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
        layer_drop=hf.layerdrop,
    )


def _adapter_from_hf(hf: Any) -> AdapterConfig | None:
    if not getattr(hf, "add_adapter", False):
        return None
    return AdapterConfig(
        width=hf.output_hidden_size or hf.hidden_size,
        layers=hf.num_adapter_layers,
        size=hf.adapter_kernel_size,
        stride=hf.adapter_stride,
    )


def frame_mask(lengths: Int[Array, " batch"], frames: int) -> Bool[Array, "batch frames"]:
    """Marks the first ``lengths`` of ``frames`` as real."""
    return jnp.arange(frames) < lengths[:, None]


class FeatureEncoder(nn.Module):
    """Strided convolutions from samples to frames."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames width"], Int[Array, " batch"] | None]:
        """Returns the frames and how many of them are real (0 for a clip shorter than one)."""
        config = self.config
        x = waveform[:, :, None]  # [batch, samples, 1]
        activation = ACTIVATIONS[config.conv_activation]
        shapes = zip(config.conv_widths, config.conv_sizes, config.conv_strides, strict=True)
        for index, (width, size, stride) in enumerate(shapes):
            name = f"layers_{index}"
            x = Convolution(width, size, stride, use_bias=config.conv_bias, name=name)(x)
            if lengths is not None:
                lengths = jnp.maximum((lengths - size) // stride + 1, 0)
            if config.conv_norm == "layer":
                x = LayerNorm(TORCH_EPSILON, name=f"norms_{index}")(x)
            elif index == 0:
                counted = None if config.padding == "exact" else lengths
                mask = None if counted is None else frame_mask(counted, x.shape[1])
                x = TimeNorm(name=f"norms_{index}")(x, mask)
            x = activation(x)
        return x, lengths


class Adapter(nn.Module):
    """Convolutions with gated linear units, each shortening the sequence by its stride.

    Attributes:
        config: of the adapter.
        padding: see ``Wav2Vec2Config``.
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
                # Upstream's formula, kernel 1; -1 // stride + 1 keeps an empty clip empty.
                lengths = (lengths - 1) // config.stride + 1
        return x, lengths


class Wav2Vec2(nn.Module):
    """Waveform in, states out."""

    config: Wav2Vec2Config

    @nn.compact
    def __call__(
        self,
        waveform: Float[Array, "batch samples"],
        mask: Bool[Array, "batch samples"] | None = None,
    ) -> tuple[Float[Array, "batch frames width"], Bool[Array, "batch frames"] | None]:
        """Encodes a waveform of 16 kHz.

        A clip shorter than the receptive field has no real frame: its row of the mask is all
        False, its states are finite and mean nothing (upstream lets everything be attended).

        Returns:
            States, and which of them are real; None if ``mask`` is None and no clip is short.
        """
        config = self.config
        waveform, mask = self._at_least_one_frame(waveform, mask)
        lengths = None if mask is None else mask.sum(-1, dtype=jnp.int32)
        x, lengths = FeatureEncoder(config, name="feature_encoder")(waveform, lengths)
        if config.projection_norm:
            x = LayerNorm(config.layer.epsilon, name="feature_norm")(x)
        x = Dense(config.layer.width, name="feature_projection")(x)
        x = Dropout(config.projection_dropout)(x)
        if config.mask_embedding:
            filling = self.param("mask_embedding", nn.initializers.uniform(1.0), x.shape[-1:])
            x = augment(self, x, lengths, config.augment, filling)

        real = None if lengths is None else frame_mask(lengths, x.shape[1])
        if real is not None:
            x = jnp.where(real[:, :, None], x, 0)
        positions = PositionalConvolution(
            config.layer.width,
            config.position_size,
            config.position_groups,
            config.position_batch_norm,
            name="positions",
        )
        silenced = None if config.padding == "exact" else real
        x = x + ACTIVATIONS[config.conv_activation](positions(x, silenced))
        x = TransformerEncoder(config.layer, config.layers, name="transformer")(x, real)
        if config.adapter:
            x, lengths = Adapter(config.adapter, config.padding, name="adapter")(x, lengths)
        return x, None if lengths is None else frame_mask(lengths, x.shape[1])

    def _at_least_one_frame(self, waveform, mask):
        missing = self.config.receptive_field - waveform.shape[1]
        if missing <= 0:
            return waveform, mask
        if mask is None:
            mask = jnp.ones(waveform.shape, bool)
        extend = ((0, 0), (0, missing))
        return jnp.pad(waveform, extend), jnp.pad(mask, extend)


NAMES = {
    "mask_embedding": "masked_spec_embed",
    "feature_encoder/layers_{}": "feature_extractor.conv_layers.{}.conv",
    "feature_encoder/norms_{}": "feature_extractor.conv_layers.{}.layer_norm",
    "feature_norm": "feature_projection.layer_norm",
    "feature_projection": "feature_projection.projection",
    "positions": "encoder.pos_conv_embed.conv",
    "positions/norm": "encoder.pos_conv_embed.batch_norm",
    "transformer/norm": "encoder.layer_norm",
    "transformer/layers_{}/self_attention/query": "encoder.layers.{}.attention.q_proj",
    "transformer/layers_{}/self_attention/key": "encoder.layers.{}.attention.k_proj",
    "transformer/layers_{}/self_attention/value": "encoder.layers.{}.attention.v_proj",
    "transformer/layers_{}/self_attention/out": "encoder.layers.{}.attention.out_proj",
    "transformer/layers_{}/self_attention_norm": "encoder.layers.{}.layer_norm",
    "transformer/layers_{}/feed_forward/up": "encoder.layers.{}.feed_forward.intermediate_dense",
    "transformer/layers_{}/feed_forward/down": "encoder.layers.{}.feed_forward.output_dense",
    "transformer/layers_{}/feed_forward_norm": "encoder.layers.{}.final_layer_norm",
    "transformer/layers_{}/bottleneck/norm": "encoder.layers.{}.adapter_layer.norm",
    "transformer/layers_{}/bottleneck/down": "encoder.layers.{}.adapter_layer.linear_1",
    "transformer/layers_{}/bottleneck/up": "encoder.layers.{}.adapter_layer.linear_2",
    "adapter/projection": "adapter.proj",
    "adapter/norm": "adapter.proj_layer_norm",
    "adapter/layers_{}": "adapter.layers.{}.conv",
}

_BATCHES_SEEN = "encoder.pos_conv_embed.batch_norm.num_batches_tracked"


def regular(state: State, config: Wav2Vec2Config) -> State:
    """Drops the counter of batch norm and a SpecAugment vector that the config does not use."""
    unused = {_BATCHES_SEEN} | (set() if config.mask_embedding else {"masked_spec_embed"})
    return {name: tensor for name, tensor in state.items() if name not in unused}


def irregular(state: State, config: Wav2Vec2Config) -> State:
    """Gives batch norm its counter back: PyTorch's strict loading wants it."""
    counter = {_BATCHES_SEEN: np.zeros((), np.int64)} if config.position_batch_norm else {}
    return state | counter


def _family(prefix: str) -> Family:
    return Family(
        config=Wav2Vec2Config,
        module=Wav2Vec2,
        names=NAMES,
        aliases=((rf"^{prefix}\.", ""),),
        unused=(
            r"^lm_head\.",
            r"^quantizer\.",
            r"^project_(q|hid)\.",
            r"^(classifier|projector)\.",
        ),
        fresh=(r"^mask_embedding$", r"^adapter/"),
        regular=regular,
        irregular=irregular,
    )


WAV2VEC2 = _family("wav2vec2")
HUBERT = _family("hubert")
