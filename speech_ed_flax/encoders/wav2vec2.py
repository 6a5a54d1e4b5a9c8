"""wav2vec 2.0 (Baevski et al., 2020) and HuBERT (Hsu et al., 2021), in all their published forms.

Behaviour matched: transformers 5.23 ``Wav2Vec2Model`` and ``HubertModel``.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.convolution import PositionalConvolution
from speech_ed_flax.layers.feed_forward import ACTIVATIONS
from speech_ed_flax.layers.transformer import TransformerEncoder
from speech_ed_flax.layers.waveform_encoder import (
    FRESH,
    NAMES,
    UNUSED,
    WaveformEncoder,
    WaveformEncoderConfig,
    layer_from_hf,
    without_unread_mask,
)
from speech_ed_flax.types import State


@dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config(WaveformEncoderConfig):
    """Shape of a wav2vec 2.0 or HuBERT encoder.

    Attributes:
        position_size: kernel of the positional convolution; ``position_groups`` its groups.
        position_batch_norm: whether it has a batch norm and no weight norm.
    """

    position_size: int
    position_groups: int
    position_batch_norm: bool = False

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2Config":
        """Reads a ``Wav2Vec2Config`` or ``HubertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        groups = hf.num_conv_pos_embedding_groups
        if groups < 1 or hf.hidden_size % groups:
            raise ConfigError(
                f"hidden_size={hf.hidden_size} is not divisible by "
                f"num_conv_pos_embedding_groups={groups}."
            )
        return cls(
            **cls.shared(hf),
            layer=layer_from_hf(hf, hf.do_stable_layer_norm),
            projection_norm=getattr(hf, "feat_proj_layer_norm", True),
            position_size=hf.num_conv_pos_embeddings,
            position_groups=groups,
            position_batch_norm=getattr(hf, "conv_pos_batch_norm", False),
        )


class Wav2Vec2(WaveformEncoder):
    """Positions by a wide convolution, then a transformer."""

    config: Wav2Vec2Config

    @nn.compact
    def transform(self, x, real):
        """Adds the positions to ``x`` and transforms the sum."""
        config = self.config
        positions = PositionalConvolution(
            config.layer.width,
            config.position_size,
            config.position_groups,
            config.position_batch_norm,
            name="positions",
        )
        silenced = None if config.padding == "exact" else real
        x = x + ACTIVATIONS[config.front.activation](positions(x, silenced))
        return TransformerEncoder(config.layer, config.layers, name="transformer")(x, real)


_BATCHES_SEEN = "encoder.pos_conv_embed.batch_norm.num_batches_tracked"


def regular(state: State, config: Wav2Vec2Config) -> State:
    """Drops the counter of batch norm and a SpecAugment vector that the config does not use."""
    state = without_unread_mask(state, config)
    return {name: tensor for name, tensor in state.items() if name != _BATCHES_SEEN}


def irregular(state: State, config: Wav2Vec2Config) -> State:
    """Gives batch norm its counter back: PyTorch's strict loading wants it."""
    counter = {_BATCHES_SEEN: np.zeros((), np.int64)} if config.position_batch_norm else {}
    return state | counter


def _family(prefix: str) -> Family:
    return Family(
        config=Wav2Vec2Config,
        module=Wav2Vec2,
        names=NAMES
        | {
            "positions": "encoder.pos_conv_embed.conv",
            "positions/norm": "encoder.pos_conv_embed.batch_norm",
        },
        aliases=((rf"^{prefix}\.", ""),),
        unused=UNUSED,
        fresh=FRESH,
        regular=regular,
        irregular=irregular,
    )


WAV2VEC2 = _family("wav2vec2")
HUBERT = _family("hubert")
