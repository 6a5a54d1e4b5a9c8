"""The speech encoder of SeamlessM4T v2 (Seamless Communication, 2023), which began as w2v-BERT.

Behaviour matched: transformers 5.23 ``SeamlessM4Tv2SpeechEncoder``.
"""

from typing import Any

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.attentive_adapter import AttentiveAdapterConfig
from speech_ed_flax.layers.augment import SpecAugment
from speech_ed_flax.layers.conformer import ConformerConfig
from speech_ed_flax.layers.conformer_names import check_positions, odd_size
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.frame_conformer import (
    NAMES,
    Between,
    Chunks,
    FrameConformer,
    FrameConformerConfig,
)
from speech_ed_flax.layers.norm import TORCH_EPSILON

_RATES = (
    *("dropout", "attention_dropout", "activation_dropout"),
    *("input_dropout", "attended_dropout", "convolution_dropout"),
)


class SeamlessConfig(FrameConformerConfig):
    """Shape of the speech encoder of SeamlessM4T v2."""

    @classmethod
    def from_hf(cls, hf: Any) -> "SeamlessConfig":
        """Reads a ``SeamlessM4Tv2Config`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        rate = hf.speech_encoder_dropout
        rates: Any = dict.fromkeys(_RATES, rate)
        layer = ConformerConfig(
            width=hf.hidden_size,
            heads=hf.speech_encoder_attention_heads,
            up_width=hf.speech_encoder_intermediate_size,
            activation=check_activation(
                "encoder.speech_encoder_hidden_act", hf.speech_encoder_hidden_act
            ),
            epsilon=hf.layer_norm_eps,
            layer_drop=hf.speech_encoder_layerdrop,
            **rates,
            size=odd_size(hf),
            causal=True,
            norm="layer",
            positions=check_positions(hf.position_embeddings_type, ("relative_key",)),
            left=hf.left_max_position_embeddings,
            right=hf.right_max_position_embeddings,
            last_norm=True,
        )
        left = hf.speech_encoder_left_chunk_num
        return cls(
            layer=layer,
            layers=hf.speech_encoder_layers,
            mels=hf.feature_projection_input_dim,
            projection_dropout=rate,
            augment=SpecAugment(None, None),
            chunks=Chunks(hf.speech_encoder_chunk_size, left + 1 if left >= 0 else None),
            between=Between(),
            adapter=_adapter(hf) if hf.add_adapter else None,
            last_norm=True,
        )


def _adapter(hf: Any) -> AttentiveAdapterConfig:
    if hf.num_adapter_layers != 1:
        raise ConfigError(
            f"encoder.num_adapter_layers={hf.num_adapter_layers} is not supported: use 1 (upstream "
            "masks the states of every layer as those of the first)."
        )
    return AttentiveAdapterConfig(
        width=hf.hidden_size,
        layers=1,
        size=hf.adaptor_kernel_size,
        stride=hf.adaptor_stride,
        heads=hf.speech_encoder_attention_heads,
        up_width=hf.speech_encoder_intermediate_size,
        activation="relu",
        epsilon=TORCH_EPSILON,
        dropout=hf.adaptor_dropout,
        attended_dropout=hf.adaptor_dropout,
        attention_dropout=hf.speech_encoder_dropout,
        activation_dropout=hf.adaptor_dropout,
    )


SEAMLESS_M4T_V2 = Family(
    config=SeamlessConfig,
    module=FrameConformer,
    names=NAMES,
    aliases=((r"^speech_encoder\.", ""),),
    unused=(r"^(text_encoder|text_decoder|t2u_model|vocoder|shared|lm_head)\.",),
)
