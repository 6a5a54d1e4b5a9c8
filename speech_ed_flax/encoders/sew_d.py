"""SEW-D (Wu et al., 2022): SEW with the disentangled attention of DeBERTa.

Behaviour matched: transformers 5.23 ``SEWDModel``; see ``SqueezedEncoder`` about masks, which 4.57
treats otherwise.
"""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.family import Family
from speech_ed_flax.layers.disentangled import DisentangledConfig, DisentangledEncoder
from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.squeezed_encoder import NAMES, SqueezedEncoder, SqueezedEncoderConfig
from speech_ed_flax.layers.waveform_encoder import FRESH, UNUSED, without_unread_mask


@dataclass(frozen=True, kw_only=True)
class SEWDConfig(SqueezedEncoderConfig):
    """Shape of a SEW-D encoder."""

    layer: DisentangledConfig

    @classmethod
    def from_hf(cls, hf: Any) -> "SEWDConfig":
        """Reads a ``SEWDConfig`` of transformers.

        Raises:
            ConfigError: naming the field that is not supported.
        """
        return cls(
            **cls.shared(hf),
            projection_epsilon=hf.feature_layer_norm_eps,
            layer=_layer_from_hf(hf),
        )


def _layer_from_hf(hf: Any) -> DisentangledConfig:
    if not hf.relative_attention:
        raise ConfigError("encoder.relative_attention=False is not supported: use True.")
    head_dim = hf.hidden_size // hf.num_attention_heads
    for name, meant in (("conv_kernel_size", 0), ("attention_head_size", head_dim)):
        if getattr(hf, name, meant) != meant:
            raise ConfigError(f"encoder.{name}={getattr(hf, name)} is not supported: use {meant}.")
    table_norm = hf.norm_rel_ebd.strip().lower()
    if table_norm not in ("none", "layer_norm"):
        raise ConfigError(
            f"encoder.norm_rel_ebd={hf.norm_rel_ebd!r} is not supported: use 'none' or "
            "'layer_norm'."
        )
    farthest = getattr(hf, "max_relative_positions", -1)
    farthest = hf.max_position_embeddings if farthest < 1 else farthest
    bucketed = hf.position_buckets > 0
    if bucketed and not 2 <= hf.position_buckets < 2 * farthest - 2:
        raise ConfigError(
            f"encoder.position_buckets={hf.position_buckets} is not supported for positions up to "
            f"{farthest}: use at least 2 and less than {2 * farthest - 2}, or -1."
        )
    kinds = hf.pos_att_type or ()
    return DisentangledConfig(
        width=hf.hidden_size,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.hidden_act", hf.hidden_act),
        pre_norm=False,
        epsilon=hf.layer_norm_eps,
        dropout=hf.activation_dropout,  # upstream's name for what others call hidden_dropout
        attention_dropout=hf.attention_dropout,
        span=hf.position_buckets if bucketed else farthest,
        farthest=farthest if bucketed else None,
        to_key="c2p" in kinds,
        to_query="p2c" in kinds,
        shared=hf.share_att_key,
        table_norm=table_norm == "layer_norm",
    )


class SEWDEncoder(SqueezedEncoder):
    """Squeezed frames, disentangled attention, stretched frames."""

    config: SEWDConfig

    @nn.compact
    def read(self, x, mask):
        """Transforms squeezed frames."""
        return DisentangledEncoder(self.config.layer, self.config.layers, name="transformer")(
            x, mask
        )


LAYER = "encoder.encoder.layer.{}."

SEW_D = Family(
    config=SEWDConfig,
    module=SEWDEncoder,
    names=NAMES
    | {
        "transformer/relative": "encoder.encoder.rel_embeddings",
        "transformer/relative_norm": "encoder.encoder.LayerNorm",
        "transformer/layers_{}/self_attention/query": LAYER + "attention.self.query_proj",
        "transformer/layers_{}/self_attention/key": LAYER + "attention.self.key_proj",
        "transformer/layers_{}/self_attention/value": LAYER + "attention.self.value_proj",
        "transformer/layers_{}/self_attention/relative_key": LAYER + "attention.self.pos_key_proj",
        "transformer/layers_{}/self_attention/relative_query": (
            LAYER + "attention.self.pos_query_proj"
        ),
        "transformer/layers_{}/self_attention/out": LAYER + "attention.output.dense",
        "transformer/layers_{}/self_attention_norm": LAYER + "attention.output.LayerNorm",
        "transformer/layers_{}/feed_forward/up": LAYER + "intermediate.dense",
        "transformer/layers_{}/feed_forward/down": LAYER + "output.dense",
        "transformer/layers_{}/feed_forward_norm": LAYER + "output.LayerNorm",
    },
    aliases=((r"^sew_d\.", ""),),
    unused=UNUSED,
    fresh=FRESH,
    regular=without_unread_mask,
)
