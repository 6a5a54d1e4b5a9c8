"""SEW (Wu et al., 2022): wav2vec 2.0 whose transformer reads squeezed frames.

Behaviour matched: transformers 5.23 ``SEWModel``; see ``SqueezedEncoder`` about masks, which 4.57
treats otherwise.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from speech_ed_flax.family import Family
from speech_ed_flax.layers.squeezed_encoder import NAMES, SqueezedEncoder, SqueezedEncoderConfig
from speech_ed_flax.layers.transformer import TransformerEncoder
from speech_ed_flax.layers.waveform_encoder import (
    FRESH,
    UNUSED,
    layer_from_hf,
    without_unread_mask,
)


@dataclass(frozen=True, kw_only=True)
class SEWConfig(SqueezedEncoderConfig):
    """Shape of a SEW encoder."""

    @classmethod
    def from_hf(cls, hf: Any) -> "SEWConfig":
        """Reads a ``SEWConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(**cls.shared(hf), layer=layer_from_hf(hf, pre_norm=False))


class SEWEncoder(SqueezedEncoder):
    """Squeezed frames, a transformer as in wav2vec 2.0, stretched frames."""

    config: SEWConfig

    @nn.compact
    def read(self, x, mask):
        """Transforms squeezed frames."""
        config = self.config
        return TransformerEncoder(config.layer, config.layers, name="transformer")(x, mask)


SEW = Family(
    config=SEWConfig,
    module=SEWEncoder,
    names=NAMES,
    aliases=((r"^sew\.", ""),),
    unused=UNUSED,
    fresh=FRESH,
    regular=without_unread_mask,
)
