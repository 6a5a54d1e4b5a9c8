"""w2v-BERT 2.0 (Seamless Communication, 2023): stacked filter banks in, states out.

Behaviour matched: transformers 5.23 ``Wav2Vec2BertModel``.
"""

from typing import Any

from speech_ed_flax.family import Family
from speech_ed_flax.layers.attentive_adapter import AttentiveAdapterConfig
from speech_ed_flax.layers.augment import SpecAugment
from speech_ed_flax.layers.conformer_names import layer_from_hf
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.frame_conformer import (
    NAMES,
    Between,
    FrameConformer,
    FrameConformerConfig,
)
from speech_ed_flax.layers.waveform_encoder import FRESH, UNUSED, without_unread_mask


class Wav2Vec2BertConfig(FrameConformerConfig):
    """Shape of a w2v-BERT 2.0 encoder."""

    @classmethod
    def from_hf(cls, hf: Any) -> "Wav2Vec2BertConfig":
        """Reads a ``Wav2Vec2BertConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        layer = layer_from_hf(
            hf,
            ("relative_key", "relative", "rotary", None),
            causal=True,
            norm="layer",
            last_norm=False,
            layer_epsilon=hf.layer_norm_eps,
            left=hf.left_max_position_embeddings,
            right=hf.right_max_position_embeddings,
        )
        between = Between(hf.activation_dropout, hf.hidden_dropout)
        return cls(
            layer=layer,
            layers=hf.num_hidden_layers,
            mels=hf.feature_projection_input_dim,
            projection_dropout=hf.feat_proj_dropout,
            mask_embedding=hf.mask_time_prob > 0 or hf.mask_feature_prob > 0,
            augment=SpecAugment.from_hf(hf),
            between=between if hf.use_intermediate_ffn_before_adapter else None,
            adapter=_adapter(hf) if hf.add_adapter else None,
        )


def _adapter(hf: Any) -> AttentiveAdapterConfig:
    return AttentiveAdapterConfig(
        width=hf.output_hidden_size or hf.hidden_size,
        layers=hf.num_adapter_layers,
        size=hf.adapter_kernel_size,
        stride=hf.adapter_stride,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.adapter_act", hf.adapter_act),
        epsilon=hf.layer_norm_eps,
        dropout=hf.hidden_dropout,
        attended_dropout=hf.conformer_conv_dropout,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
    )


WAV2VEC2_BERT = Family(
    config=Wav2Vec2BertConfig,
    module=FrameConformer,
    names=NAMES,
    aliases=((r"^wav2vec2_bert\.", ""),),
    unused=UNUSED,
    fresh=(*FRESH, r"^between/"),
    regular=without_unread_mask,
)
