"""What Whisper's encoder and speech-to-text's have in common: layers and names of BART's kind."""

from typing import Any

from speech_ed_flax.layers.feed_forward import check_activation
from speech_ed_flax.layers.transformer import LayerConfig


def layer_from_hf(hf: Any, key_bias: bool = True) -> LayerConfig:
    """Reads the pre-norm transformer layer of an encoder whose decoder has its own sizes.

    Args:
        hf: config of transformers.
        key_bias: whether attention keys have a bias.

    Raises:
        ConfigError: naming the field that is not supported.
    """
    return LayerConfig(
        width=hf.d_model,
        heads=hf.encoder_attention_heads,
        up_width=hf.encoder_ffn_dim,
        activation=check_activation("encoder.activation_function", hf.activation_function),
        pre_norm=True,
        key_bias=key_bias,
        dropout=hf.dropout,
        attention_dropout=hf.attention_dropout,
        activation_dropout=hf.activation_dropout,
        layer_drop=hf.encoder_layerdrop,
    )


NAMES = {
    "transformer/norm": "layer_norm",
    "transformer/layers_{}/self_attention/query": "layers.{}.self_attn.q_proj",
    "transformer/layers_{}/self_attention/key": "layers.{}.self_attn.k_proj",
    "transformer/layers_{}/self_attention/value": "layers.{}.self_attn.v_proj",
    "transformer/layers_{}/self_attention/out": "layers.{}.self_attn.out_proj",
    "transformer/layers_{}/self_attention_norm": "layers.{}.self_attn_layer_norm",
    "transformer/layers_{}/feed_forward/up": "layers.{}.fc1",
    "transformer/layers_{}/feed_forward/down": "layers.{}.fc2",
    "transformer/layers_{}/feed_forward_norm": "layers.{}.final_layer_norm",
}
"""Rows of a family's table."""

ALIASES = ((r"^(model\.)?encoder\.", ""),)
"""Checkpoints of the whole model hold the encoder so."""
