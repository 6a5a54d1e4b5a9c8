"""Every setting of an encoder means what it means in PyTorch, one at a time."""

import numpy as np
import pytest
from families import (
    DECODERS,
    MOONSHINE,
    PARAKEET,
    SEAMLESS,
    SPEECH_TO_TEXT,
    SPEECHT5,
    WAV2VEC2_BERT,
    WAVEFORM,
    WHISPER,
    joint,
    speech,
    vary,
)
from pytorch import Pair, build, tensor, torch
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    MoonshineConfig,
    ParakeetEncoderConfig,
    SeamlessM4Tv2Config,
    SEWConfig,
    SEWDConfig,
    Speech2TextConfig,
    SpeechT5Config,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
    WhisperConfig,
)

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import build as make_module

DECODER = vary(DECODERS["gpt2"], n_layer=1)
LAYER = WAVEFORM | {"num_hidden_layers": 1}

GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
ADAPTER = {"add_adapter": True, "num_adapter_layers": 2}

# fmt: off
WAV2VEC2 = {
    "group-stable": {"feat_extract_norm": "group", "do_stable_layer_norm": True},
    "layer-post-norm": {"feat_extract_norm": "layer", "do_stable_layer_norm": False},
    "bias-group": GROUP | {"conv_bias": True},
    "no-bias-layer": STABLE | {"conv_bias": False},
    "odd-positional-kernel": GROUP | {"num_conv_pos_embeddings": 7},
    "one-positional-group": GROUP | {"num_conv_pos_embedding_groups": 1},
    "relu": GROUP | {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "gelu-new": STABLE | {"hidden_act": "gelu_new", "feat_extract_activation": "gelu_new"},
    "large-epsilon": STABLE | {"layer_norm_eps": 1e-1},
    "post-norm-adapter": GROUP | ADAPTER,
    "wider-adapter": STABLE | ADAPTER | {"output_hidden_size": 28},
    "adapter-of-one-layer-and-stride-3": STABLE | {"add_adapter": True, "num_adapter_layers": 1, "adapter_stride": 3},  # noqa: E501
    "attention-adapter": STABLE | {"adapter_attn_dim": 6},
    "attention-adapter-ignored": GROUP | {"adapter_attn_dim": 6},
    "no-spec-augment": GROUP | {"mask_time_prob": 0.0, "mask_feature_prob": 0.0},
}

HUBERT = {
    "base": GROUP,
    "batch-norm": GROUP | {"conv_pos_batch_norm": True},
    "batch-norm-odd-stable": STABLE | {"conv_pos_batch_norm": True, "num_conv_pos_embeddings": 7},
    "no-projection-norm": GROUP | {"feat_proj_layer_norm": False},
    "attention-adapter": STABLE | {"adapter_attn_dim": 6},
}

DATA2VEC_AUDIO = {
    "even-kernels-with-bias": {"conv_pos_kernel_size": 4, "num_conv_pos_embeddings": 3, "conv_bias": True},  # noqa: E501
    "adapter": ADAPTER | {"output_hidden_size": 20, "num_conv_pos_embeddings": 1},
    "relu": {"feat_extract_activation": "relu", "hidden_act": "relu"},
}

SEW = {
    "group": {"feat_extract_norm": "group", "squeeze_factor": 2},
    "squeeze-by-1": {"squeeze_factor": 1},
    "odd-positional-kernel-and-bias": {"squeeze_factor": 4, "num_conv_pos_embeddings": 7, "conv_bias": True},  # noqa: E501
    "no-projection": {"conv_dim": (8, 8, 24)},
    "relu": {"feat_extract_activation": "relu", "hidden_act": "relu"},
}

BUCKETS = {"position_buckets": 8, "max_position_embeddings": 12}
SEW_D = {
    "layer-norm-squeeze-by-3": BUCKETS | {"feat_extract_norm": "layer", "squeeze_factor": 3},
    "no-buckets": {"position_buckets": -1, "max_position_embeddings": 12},
    "fewer-relative-positions": BUCKETS | {"max_relative_positions": 9},
    "projections-of-their-own": BUCKETS | {"share_att_key": False},
    "positions-of-keys": BUCKETS | {"share_att_key": False, "pos_att_type": ["c2p"]},
    "positions-of-queries": BUCKETS | {"share_att_key": False, "pos_att_type": ["p2c"]},
    "no-positions": BUCKETS | {"pos_att_type": []},
    "table-without-norm": BUCKETS | {"norm_rel_ebd": "none"},
    "epsilons": BUCKETS | {"layer_norm_eps": 1e-2, "feature_layer_norm_eps": 1e-1},
    "relu": BUCKETS | {"hidden_act": "relu"},
}

UNISPEECH = {
    "group": GROUP,
    "attention-adapter": STABLE | {"adapter_attn_dim": 6},
}

WAVLM = {
    "base": GROUP,
    "few-buckets": GROUP | {"num_buckets": 5, "max_bucket_distance": 20},
    "stable-adapter": STABLE | ADAPTER | {"output_hidden_size": 20, "num_buckets": 12, "max_bucket_distance": 30},  # noqa: E501
    "attention-adapter-ignored": STABLE | {"adapter_attn_dim": 6},
}

WHISPERS = {
    "relu": {"activation_function": "relu"},
    "scaled-embedding": {"scale_embedding": True},
}

MOONSHINES = {
    "attention-bias": {"attention_bias": True},
    "turned-less-and-faster": {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0, "partial_rotary_factor": 0.4}},  # noqa: E501
    "relu-padded-heads": {"encoder_hidden_act": "relu", "pad_head_dim_to_multiple_of": 16},
    "odd-pairs": {"hidden_size": 18},
}

SPEECHT5S = {
    "layer-norm": {"feat_extract_norm": "layer", "conv_bias": True},
    "all-distances-told-apart": {"encoder_max_relative_position": 100},
    "relu": {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "large-epsilon-odd-kernel": {"layer_norm_eps": 1e-1, "num_conv_pos_embeddings": 7},
    "no-spec-augment": {"mask_time_prob": 0.0},
}

SPEECH_TO_TEXTS = {
    "gelu": {"activation_function": "gelu"},
    "one-convolution": {"conv_kernel_sizes": (3,), "num_conv_layers": 1},
    "not-scaled": {"scale_embedding": False},
}

CONFORMERS = {
    "group": {"feat_extract_norm": "group"},
    "no-positions": {"position_embeddings_type": None},
    "rotary-of-another-base": {"position_embeddings_type": "rotary", "rotary_embedding_base": 100},
    "wide-kernel": {"conv_depthwise_kernel_size": 61},
    "large-epsilon": {"layer_norm_eps": 1e-1},
    "few-positions": {"max_source_positions": 5},
    "wider-adapter": ADAPTER | {"output_hidden_size": 28},
}

WAV2VEC2_BERTS = {
    "relative": {"position_embeddings_type": "relative"},
    "rotary": {"position_embeddings_type": "rotary", "rotary_embedding_base": 50},
    "no-positions": {"position_embeddings_type": None, "hidden_act": "gelu"},
    "far-positions": {"left_max_position_embeddings": 100, "right_max_position_embeddings": 200},
    "large-epsilon": {"layer_norm_eps": 1e-1, "add_adapter": True, "output_hidden_size": 20},
    "two-adapters": {"add_adapter": True, "num_adapter_layers": 2, "adapter_act": "gelu"},
    "wide-adapter": {"add_adapter": True, "adapter_kernel_size": 9, "adapter_stride": 8},
}

SEAMLESSES = {
    "one-chunk": {"speech_encoder_chunk_size": 2000},
    "all-chunks-before": {"speech_encoder_left_chunk_num": -1},
    "no-adapter": {"add_adapter": False},
    "gelu": {"speech_encoder_hidden_act": "gelu"},
    "large-epsilon": {"layer_norm_eps": 1e-1},
    "short-adapter": {"adaptor_kernel_size": 3, "adaptor_stride": 2},
}

PARAKEETS = {
    "no-biases": {"attention_bias": False, "convolution_bias": False},
    "not-scaled": {"scale_input": False},
    "wide-kernels": {"conv_kernel_size": 31, "subsampling_conv_kernel_size": 5},
    "half-the-frames-gelu": {"subsampling_factor": 2, "hidden_act": "gelu"},
    "stride-3": {"subsampling_factor": 4, "subsampling_conv_stride": 3, "num_mel_bins": 9},
}
# fmt: on


def assert_same_states(pair: Pair, inputs: np.ndarray, mask: np.ndarray) -> None:
    """Asserts that states, and which of them are real, are the same."""
    encoder = pair.theirs.encoder
    with torch.no_grad():
        theirs = encoder(tensor(inputs), attention_mask=tensor(mask)).last_hidden_state
        projected = pair.theirs.enc_to_dec_proj(theirs).numpy()
        real = encoder._get_feature_vector_attention_mask(theirs.shape[1], tensor(mask)).bool()
    ours = pair.ours.encode(inputs, mask)
    assert ours.last_hidden_state.shape == projected.shape
    np.testing.assert_allclose(ours.last_hidden_state, projected, rtol=0, atol=5e-5)
    everything = np.ones(projected.shape[:2], bool)  # which is what no mask means
    mask = everything if ours.attention_mask is None else ours.attention_mask
    np.testing.assert_array_equal(mask, real.numpy())


VARIANTS = [
    ("wav2vec2", Wav2Vec2Config, LAYER, WAV2VEC2),
    ("hubert", HubertConfig, LAYER, HUBERT),
    ("data2vec-audio", Data2VecAudioConfig, LAYER | {"conv_pos_kernel_size": 5}, DATA2VEC_AUDIO),
    ("unispeech", UniSpeechConfig, LAYER, UNISPEECH),
    ("unispeech-sat", UniSpeechSatConfig, LAYER, UNISPEECH),
    ("moonshine", MoonshineConfig, MOONSHINE | {"encoder_num_hidden_layers": 1}, MOONSHINES),
    ("wav2vec2-bert", Wav2Vec2BertConfig, WAV2VEC2_BERT | {"num_hidden_layers": 1}, WAV2VEC2_BERTS),
    ("seamless_m4t_v2", SeamlessM4Tv2Config, SEAMLESS | {"speech_encoder_layers": 1}, SEAMLESSES),
    ("parakeet_encoder", ParakeetEncoderConfig, PARAKEET | {"num_hidden_layers": 1}, PARAKEETS),
    ("speech_to_text", Speech2TextConfig, SPEECH_TO_TEXT | {"encoder_layers": 1}, SPEECH_TO_TEXTS),
    ("speecht5", SpeechT5Config, SPEECHT5 | {"num_hidden_layers": 1}, SPEECHT5S),
    (
        "wav2vec2-conformer",
        Wav2Vec2ConformerConfig,
        LAYER | {"conv_depthwise_kernel_size": 5},
        CONFORMERS,
    ),
    ("sew", SEWConfig, LAYER, SEW),
    ("sew-d", SEWDConfig, LAYER, SEW_D),
    ("wavlm", WavLMConfig, LAYER, WAVLM),
    ("whisper", WhisperConfig, WHISPER, WHISPERS),
]
"""Name, class, what all forms have, and what each has besides."""


@pytest.mark.parametrize(
    "encoder",
    [
        pytest.param(vary(kind(**shared), **one), id=f"{name}-{form}")
        for name, kind, shared, forms in VARIANTS
        for form, one in forms.items()
    ],
)
def test_states_are_those_of_pytorch_with_a_mask_and_without(encoder, tmp_path):
    """No mask is all ones here, which is compiled once; ``test_outputs`` compiles both."""
    pair = build(encoder, DECODER, tmp_path)
    inputs, mask = speech(encoder)
    assert_same_states(pair, inputs, np.ones_like(mask))
    assert_same_states(pair, inputs, mask)


@pytest.mark.parametrize(
    ("encoder", "field", "value"),
    [
        (SEWDConfig, "relative_attention", False),
        (SEWDConfig, "conv_kernel_size", 3),
        (SEWDConfig, "attention_head_size", 8),
        (SEWDConfig, "norm_rel_ebd", "batch_norm"),
        (SEWDConfig, "position_buckets", 1024),
        (WavLMConfig, "num_buckets", 3),
        (WavLMConfig, "max_bucket_distance", 80),
    ],
)
def test_settings_that_are_not_supported_are_refused_by_name(encoder, field, value):
    with pytest.raises(ConfigError, match=field):
        make_module(joint(encoder(**LAYER | {field: value}), DECODER))
