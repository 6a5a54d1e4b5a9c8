"""wav2vec 2.0 (Baevski et al., 2020), HuBERT (Hsu et al., 2021), UniSpeech and UniSpeech-SAT.

UniSpeech (Wang et al., 2021) and UniSpeech-SAT (Chen et al., 2021) differ from wav2vec 2.0 in how
they were trained. Behaviour matched: transformers 5.23 ``Wav2Vec2Model``, ``HubertModel``,
``UniSpeechModel`` and ``UniSpeechSatModel``.
"""

from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import numpy as np

from speech_ed_flax.family import Family
from speech_ed_flax.layers.positional import PositionalConfig, PositionalConvolution
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
    """Shape of a wav2vec 2.0, HuBERT, UniSpeech or UniSpeech-SAT encoder.

    Attributes:
        positional: the convolution whose output is added to the frames.
    """

    positional: PositionalConfig

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2Config":
        """Reads the config of one of these families of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(
            **cls.shared(hf),
            layer=layer_from_hf(hf, hf.do_stable_layer_norm),
            projection_norm=getattr(hf, "feat_proj_layer_norm", True),
            positional=PositionalConfig.from_hf(hf),
        )


class UniSpeechSatConfig(Wav2Vec2Config):
    """Shape of a UniSpeech-SAT encoder: it always holds the vector that SpecAugment writes."""

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2Config":
        """Reads a ``UniSpeechSatConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return replace(super().from_hf(hf), mask_embedding=True)


class Wav2Vec2(WaveformEncoder):
    """Positions by a wide convolution, then a transformer."""

    config: Wav2Vec2Config

    @nn.compact
    def transform(self, x, real):
        """Adds the positions to ``x`` and transforms the sum."""
        config = self.config
        positions = PositionalConvolution(config.positional, name="positions")
        x = x + positions(x, None if config.padding == "exact" else real)
        return TransformerEncoder(config.layer, config.layers, name="transformer")(x, real)


_BATCHES_SEEN = "encoder.pos_conv_embed.batch_norm.num_batches_tracked"


def regular(state: State, config: Wav2Vec2Config) -> State:
    """Drops the counter of batch norm and a SpecAugment vector that the config does not use."""
    state = without_unread_mask(state, config)
    return {name: tensor for name, tensor in state.items() if name != _BATCHES_SEEN}


def irregular(state: State, config: Wav2Vec2Config) -> State:
    """Gives batch norm its counter back: PyTorch's strict loading wants it."""
    counter = {_BATCHES_SEEN: np.zeros((), np.int64)} if config.positional.batch_norm else {}
    return state | counter


def _family(
    prefix: str, config: type[Wav2Vec2Config] = Wav2Vec2Config, unused: tuple[str, ...] = ()
) -> Family:
    return Family(
        config=config,
        module=Wav2Vec2,
        names=NAMES
        | {
            "positions": "encoder.pos_conv_embed.conv",
            "positions/norm": "encoder.pos_conv_embed.batch_norm",
        },
        aliases=((rf"^{prefix}\.", ""),),
        unused=(*UNUSED, *unused),
        fresh=FRESH,
        regular=regular,
        irregular=irregular,
    )


WAV2VEC2 = _family("wav2vec2")
HUBERT = _family("hubert")
UNISPEECH = _family("unispeech", unused=(r"^ctc_proj\.",))
UNISPEECH_SAT = _family(
    "unispeech_sat",
    UniSpeechSatConfig,
    (r"^speaker_proj\.", r"^label_embeddings_concat$", r"^layer_norm_for_extract\."),
)
