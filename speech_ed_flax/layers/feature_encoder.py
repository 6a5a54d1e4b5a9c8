"""Strided convolutions from samples to frames: the front end of wav2vec 2.0 and all its kin."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.convolution import Convolution
from speech_ed_flax.layers.feed_forward import ACTIVATIONS, check_activation
from speech_ed_flax.layers.filters import WIDE, mel_sinusoids
from speech_ed_flax.layers.norm import TORCH_EPSILON, LayerNorm, TimeNorm
from speech_ed_flax.types import Array, Bool, Float, Int, Size


@dataclass(frozen=True)
class FeatureEncoderConfig:
    """Shape of the convolutions.

    Attributes:
        widths: of each; ``sizes`` are those of the kernels, ``strides`` go with them.
        bias: whether they have biases.
        norm: ``"group"`` normalises the first one over time, ``"layer"`` all of them over channels.
        activation: after each of them.
    """

    widths: tuple[int, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    bias: bool
    norm: str
    activation: str

    @property
    def receptive_field(self) -> int:
        """Samples that the first frame sees: 400 in every published model."""
        field = 1
        for size, stride in zip(reversed(self.sizes), reversed(self.strides), strict=True):
            field = (field - 1) * stride + size
        return field

    def frames(self, samples: Any) -> Any:
        """Returns the frames of clips of so many samples, integers of any shape."""
        for size, stride in zip(self.sizes, self.strides, strict=True):
            samples = np.maximum((samples - size) // stride + 1, 0)
        return samples

    @classmethod
    def from_hf(cls, hf: Any, norm: str | None = None) -> "FeatureEncoderConfig":
        """Reads the names that the configs of all these families share.

        Args:
            hf: config of transformers.
            norm: for families that have one form only.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        if not len(hf.conv_dim) == len(hf.conv_kernel) == len(hf.conv_stride) > 0:
            raise ConfigError("conv_dim, conv_kernel and conv_stride must be equally long.")
        norm = norm or hf.feat_extract_norm
        if norm not in ("group", "layer"):
            raise ConfigError(
                f"encoder.feat_extract_norm={norm!r} is not supported: use 'group' or 'layer'."
            )
        return cls(
            widths=tuple(hf.conv_dim),
            sizes=tuple(hf.conv_kernel),
            strides=tuple(hf.conv_stride),
            bias=hf.conv_bias,
            norm=norm,
            activation=check_activation(
                "encoder.feat_extract_activation", hf.feat_extract_activation
            ),
        )


def frame_mask(lengths: Int[Array, " batch"], frames: Size) -> Bool[Array, "batch frames"]:
    """Marks the first ``lengths`` of ``frames`` as real."""
    return jnp.arange(frames) < lengths[:, None]


class FeatureEncoder(nn.Module):
    """Strided convolutions, each with its norm and activation.

    Attributes:
        config: their shape.
        padding: ``"exact"`` or ``"invariant"``; see ``waveform_encoder``.
    """

    config: FeatureEncoderConfig
    padding: str

    @nn.compact
    def __call__(
        self, waveform: Float[Array, "batch samples"], lengths: Int[Array, " batch"] | None
    ) -> tuple[Float[Array, "batch frames width"], Int[Array, " batch"] | None]:
        """Returns the frames and how many of them are real (0 for a clip shorter than one)."""
        config = self.config
        x = waveform[:, :, None]  # [batch, samples, 1]
        activation = ACTIVATIONS[config.activation]
        shapes = zip(config.widths, config.sizes, config.strides, strict=True)
        for index, (width, size, stride) in enumerate(shapes):
            first = mel_sinusoids if index == 0 and size >= WIDE else nn.initializers.he_normal()
            x = Convolution(
                width, size, stride, use_bias=config.bias, initialise=first, name=f"layers_{index}"
            )(x)
            if lengths is not None:
                lengths = jnp.maximum((lengths - size) // stride + 1, 0)
            if config.norm == "layer":
                x = LayerNorm(TORCH_EPSILON, name=f"norms_{index}")(x)
            elif index == 0:
                counted = None if self.padding == "exact" else lengths
                mask = None if counted is None else frame_mask(counted, x.shape[1])
                x = TimeNorm(name=f"norms_{index}")(x, mask)
            x = activation(x)
        return x, lengths


def at_least_one_frame(
    waveform: Float[Array, "batch samples ..."],
    mask: Bool[Array, "batch samples"] | None,
    receptive_field: int,
) -> tuple[Float[Array, "batch samples2 ..."], Bool[Array, "batch samples2"] | None]:
    """Pads clips that are all shorter than one frame, and says in the mask that they are.

    Such a clip's row of the mask of frames is all False, its states are finite and mean nothing
    (upstream lets everything be attended).
    """
    missing = receptive_field - waveform.shape[1]
    if missing <= 0:
        return waveform, mask
    if mask is None:
        mask = jnp.ones(waveform.shape[:2], bool)
    extend = ((0, 0), (0, missing))
    beside = ((0, 0),) * (waveform.ndim - 2)
    return jnp.pad(waveform, extend + beside), jnp.pad(mask, extend)


NAMES = {
    "feature_encoder/layers_{}": "feature_extractor.conv_layers.{}.conv",
    "feature_encoder/norms_{}": "feature_extractor.conv_layers.{}.layer_norm",
}
"""Rows of a family's table."""
