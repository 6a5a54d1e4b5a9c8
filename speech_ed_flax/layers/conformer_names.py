"""How transformers names conformers that come from fairseq: the fields of configs, the tensors."""

from collections.abc import Collection
from typing import Any

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.conformer import ConformerConfig
from speech_ed_flax.layers.feed_forward import check_activation


def check_positions(kind: str | None, kinds: Collection[str | None]) -> Any:
    """Returns ``kind`` if it is one of ``kinds``.

    Raises:
        ConfigError: naming the field and the kinds.
    """
    if kind not in kinds:
        known = ", ".join(repr(one) for one in kinds)
        raise ConfigError(
            f"encoder.position_embeddings_type={kind!r} is not supported: use one of {known}."
        )
    return kind


def odd_size(hf: Any) -> int:
    """Returns the size of the depthwise kernels.

    Raises:
        ConfigError: if it is even: transformers refuses that too.
    """
    size = hf.conv_depthwise_kernel_size
    if size < 1 or size % 2 == 0:
        raise ConfigError(f"encoder.conv_depthwise_kernel_size={size} is not an odd number.")
    return size


def layer_from_hf(hf: Any, kinds: Collection[str | None], **fields: Any) -> ConformerConfig:
    """Reads the names that the configs of wav2vec 2.0's conformers share.

    Args:
        hf: config of transformers.
        kinds: of positions that the family has.
        **fields: of our config, which the family decides.

    Raises:
        ConfigError: naming the field that is not supported.
    """
    return ConformerConfig(
        width=hf.hidden_size,
        heads=hf.num_attention_heads,
        up_width=hf.intermediate_size,
        activation=check_activation("encoder.hidden_act", hf.hidden_act),
        epsilon=hf.layer_norm_eps,
        dropout=hf.hidden_dropout,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
        layer_drop=hf.layerdrop,
        size=odd_size(hf),
        positions=check_positions(hf.position_embeddings_type, kinds),
        rotary_base=hf.rotary_embedding_base,
        input_dropout=hf.hidden_dropout,
        attended_dropout=hf.attention_dropout,
        convolution_dropout=hf.conformer_conv_dropout,
        **fields,
    )


LAYER = "encoder.layers.{}."

NAMES = {
    "transformer/norm": "encoder.layer_norm",
    "transformer/layers_{}/first_feed_forward/up": LAYER + "ffn1.intermediate_dense",
    "transformer/layers_{}/first_feed_forward/down": LAYER + "ffn1.output_dense",
    "transformer/layers_{}/first_feed_forward_norm": LAYER + "ffn1_layer_norm",
    "transformer/layers_{}/self_attention/query": LAYER + "self_attn.linear_q",
    "transformer/layers_{}/self_attention/key": LAYER + "self_attn.linear_k",
    "transformer/layers_{}/self_attention/value": LAYER + "self_attn.linear_v",
    "transformer/layers_{}/self_attention/out": LAYER + "self_attn.linear_out",
    "transformer/layers_{}/self_attention_norm": LAYER + "self_attn_layer_norm",
    "transformer/layers_{}/relative_positions": LAYER + "self_attn.distance_embedding",
    "transformer/layers_{}/relative_positions/projection": LAYER + "self_attn.linear_pos",
    "transformer/layers_{}/relative_positions/content_bias": LAYER + "self_attn.pos_bias_u",
    "transformer/layers_{}/relative_positions/position_bias": LAYER + "self_attn.pos_bias_v",
    "transformer/layers_{}/convolution_norm": LAYER + "conv_module.layer_norm",
    "transformer/layers_{}/convolution/up": LAYER + "conv_module.pointwise_conv1",
    "transformer/layers_{}/convolution/depthwise": LAYER + "conv_module.depthwise_conv",
    "transformer/layers_{}/convolution/down": LAYER + "conv_module.pointwise_conv2",
    "transformer/layers_{}/second_feed_forward/up": LAYER + "ffn2.intermediate_dense",
    "transformer/layers_{}/second_feed_forward/down": LAYER + "ffn2.output_dense",
    "transformer/layers_{}/second_feed_forward_norm": LAYER + "ffn2_layer_norm",
    "transformer/layers_{}/out_norm": LAYER + "final_layer_norm",
}
"""Rows of a family's table, all but the norm of the convolution."""
