"""Settings of encoders that transformers computes otherwise, or not at all, are refused by name."""

import pytest
from families import DECODERS, ENCODERS, joint, vary

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import build

LINEAR = {
    "rope_type": "linear",
    "rope_theta": 10_000.0,
    "factor": 2.0,
    "partial_rotary_factor": 0.9,
}


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("moonshine", {"encoder_num_key_value_heads": 1}, "encoder_num_key_value_heads=1"),
        ("moonshine", {"head_dim": 16}, "head_dim=16"),
        ("moonshine", {"rope_parameters": LINEAR}, "'linear'"),
        ("moonshine", {"encoder_hidden_act": "mish"}, "encoder_hidden_act='mish'"),
        ("speech_to_text", {"pad_token_id": 0}, "pad_token_id=0"),
        ("speech_to_text", {"conv_kernel_sizes": (4, 5)}, r"conv_kernel_sizes=\[4, 5\]"),
        ("speech_to_text", {"conv_channels": 7}, "conv_channels=7"),
        ("speech_to_text", {"activation_function": "mish"}, "activation_function='mish'"),
        ("speecht5", {"pad_token_id": 3}, "pad_token_id=3"),
        ("speecht5", {"feat_extract_norm": "batch"}, "feat_extract_norm='batch'"),
        ("speecht5", {"hidden_act": "mish"}, "hidden_act='mish'"),
        ("parakeet_encoder", {"conv_kernel_size": 4}, "conv_kernel_size=4"),
        ("parakeet_encoder", {"subsampling_conv_kernel_size": 2}, "subsampling_conv_kernel_size=2"),
        ("parakeet_encoder", {"num_mel_bins": 10}, "num_mel_bins=10"),
        ("parakeet_encoder", {"head_dim": 8}, "head_dim=8"),
        ("seamless_m4t_v2", {"num_adapter_layers": 2}, "num_adapter_layers=2"),
        ("seamless_m4t_v2", {"position_embeddings_type": "relative"}, "'relative'"),
        ("seamless_m4t_v2", {"adaptor_kernel_size": 5}, "kernel size 5 and stride 8"),
        ("seamless_m4t_v2", {"conv_depthwise_kernel_size": 4}, "conv_depthwise_kernel_size=4"),
        ("wav2vec2-bert", {"adapter_stride": 4}, "kernel size 3 and stride 4"),
        ("wav2vec2-bert", {"adapter_act": "mish"}, "adapter_act='mish'"),
        ("wav2vec2-bert", {"output_hidden_size": 22}, "width 22"),
        ("wav2vec2-conformer", {"conv_depthwise_kernel_size": 6}, "conv_depthwise_kernel_size=6"),
        ("wav2vec2-conformer", {"position_embeddings_type": "learned"}, "'learned'"),
        ("wav2vec2-conformer", {"num_conv_pos_embedding_groups": 5}, "embedding_groups=5"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(name, fields, reason):
    with pytest.raises(ConfigError, match=rf"encoder \({name}\): .*{reason}"):
        build(joint(vary(ENCODERS[name], **fields), DECODERS["bert"]))
