"""Every family under test, as a tiny transformers configuration: to add a family, add its line.

The widths differ on purpose: some pairs need a projection between encoder and decoder and some do
not, and the adapter's output is neither as wide as its encoder nor as any decoder.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
from transformers import (
    BartConfig,
    BertConfig,
    BertGenerationConfig,
    BigBirdConfig,
    BigBirdPegasusConfig,
    BlenderbotConfig,
    BlenderbotSmallConfig,
    CamembertConfig,
    Data2VecAudioConfig,
    Data2VecTextConfig,
    ElectraConfig,
    ErnieConfig,
    GPT2Config,
    GPTBigCodeConfig,
    HubertConfig,
    MarianConfig,
    MBartConfig,
    MegatronBertConfig,
    MoonshineConfig,
    MvpConfig,
    ParakeetEncoderConfig,
    PegasusConfig,
    PLBartConfig,
    ProphetNetConfig,
    RemBertConfig,
    RobertaConfig,
    RobertaPreLayerNormConfig,
    RoCBertConfig,
    RoFormerConfig,
    SeamlessM4Tv2Config,
    SEWConfig,
    SEWDConfig,
    Speech2TextConfig,
    SpeechEncoderDecoderConfig,
    SpeechT5Config,
    TrOCRConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
    WhisperConfig,
    XGLMConfig,
    XLMRobertaConfig,
    XLMRobertaXLConfig,
    XmodConfig,
)

VOCAB = 48
POSITIONS = 32
"""Longest sequence of every decoder."""

WAVEFORM: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "conv_dim": (8, 8, 8),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
"""Sizes of every encoder that hears waveforms; 20 samples a frame."""

BART: dict[str, Any] = {
    "vocab_size": VOCAB,
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
}
"""Sizes of every decoder of BART's kind, and of Whisper's encoder."""

BERT: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": POSITIONS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
"""Sizes and tokens of decoders of BERT's kind."""

WHISPER: dict[str, Any] = BART | {
    "num_mel_bins": 8,
    "max_source_positions": 20,
    "max_target_positions": POSITIONS,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bos_token_id": 4,
    "pad_token_id": 4,
    "eos_token_id": 4,
    "decoder_start_token_id": 3,
}

MOONSHINE: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "encoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 3,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 3,
    "vocab_size": VOCAB,
}

SPEECH_TO_TEXT: dict[str, Any] = {
    "d_model": 24,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "decoder_layers": 1,
    "decoder_ffn_dim": 8,
    "vocab_size": VOCAB,
    "conv_channels": 12,
    "input_feat_per_channel": 5,
    "input_channels": 2,
}

SPEECHT5: dict[str, Any] = WAVEFORM | {
    "encoder_ffn_dim": 32,
    "encoder_max_relative_position": 10,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 8,
    "vocab_size": VOCAB,
}
ROBERTA: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 0,
}
"""Sizes of every decoder of RoBERTa's kind."""


WAV2VEC2_BERT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "feature_projection_input_dim": 10,
    "left_max_position_embeddings": 5,
    "right_max_position_embeddings": 3,
    "conv_depthwise_kernel_size": 5,
    "vocab_size": VOCAB,
}

SEAMLESS: dict[str, Any] = {
    "hidden_size": 24,
    "feature_projection_input_dim": 10,
    "speech_encoder_layers": 2,
    "speech_encoder_attention_heads": 4,
    "speech_encoder_intermediate_size": 32,
    "left_max_position_embeddings": 5,
    "right_max_position_embeddings": 3,
    "conv_depthwise_kernel_size": 5,
    # No frame of padding sees padding alone here: PyTorch attends to everything then.
    "speech_encoder_chunk_size": 32,
    "speech_encoder_left_chunk_num": 1,
    "vocab_size": VOCAB,
    "decoder_layers": 1,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 8,
    "max_position_embeddings": POSITIONS,
}

PARAKEET: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "conv_kernel_size": 5,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 6,
    "num_mel_bins": 8,
}

# fmt: off
ENCODERS = {
    "wav2vec2": Wav2Vec2Config(**WAVEFORM, feat_extract_norm="group", do_stable_layer_norm=False),
    "wav2vec2-adapter": Wav2Vec2Config(**WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, add_adapter=True, num_adapter_layers=2, output_hidden_size=20),  # noqa: E501
    "hubert": HubertConfig(**WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),  # noqa: E501
    "whisper": WhisperConfig(**WHISPER),
    "moonshine": MoonshineConfig(**MOONSHINE),
    "speech_to_text": Speech2TextConfig(**SPEECH_TO_TEXT),
    "speecht5": SpeechT5Config(**SPEECHT5),
    "wav2vec2-conformer": Wav2Vec2ConformerConfig(**WAVEFORM, vocab_size=VOCAB, feat_extract_norm="layer", conv_bias=True, conv_depthwise_kernel_size=5, hidden_act="swish", add_adapter=True, num_adapter_layers=1),  # noqa: E501
    "wav2vec2-conformer-rotary": Wav2Vec2ConformerConfig(**WAVEFORM, vocab_size=VOCAB, feat_extract_norm="layer", conv_bias=True, conv_depthwise_kernel_size=5, position_embeddings_type="rotary"),  # noqa: E501
    "wav2vec2-bert": Wav2Vec2BertConfig(**WAV2VEC2_BERT, add_adapter=True, use_intermediate_ffn_before_adapter=True, output_hidden_size=20),  # noqa: E501
    "seamless_m4t_v2": SeamlessM4Tv2Config(**SEAMLESS),
    "parakeet_encoder": ParakeetEncoderConfig(**PARAKEET, dropout_positions=0.1),
    "data2vec-audio": Data2VecAudioConfig(**WAVEFORM | {"num_conv_pos_embeddings": 2}, conv_pos_kernel_size=5),  # noqa: E501
    "sew": SEWConfig(**WAVEFORM, feat_extract_norm="layer", squeeze_factor=3),
    "sew-d": SEWDConfig(**WAVEFORM, squeeze_factor=2, position_buckets=8, max_position_embeddings=12),  # noqa: E501
    "unispeech": UniSpeechConfig(**WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True),  # noqa: E501
    "unispeech-sat": UniSpeechSatConfig(**WAVEFORM, mask_time_prob=0.0),
    "wavlm": WavLMConfig(**WAVEFORM, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_buckets=12, max_bucket_distance=20),  # noqa: E501
}

DECODERS = {
    "bert": BertConfig(**BERT),
    "gpt2": GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=POSITIONS, bos_token_id=3, eos_token_id=3, pad_token_id=3, decoder_start_token_id=3),  # noqa: E501
    "gpt-sw3": GPT2Config(model_type="gpt-sw3", vocab_size=VOCAB, n_embd=16, n_layer=1, n_head=2, n_inner=40, n_positions=POSITIONS, activation_function="gelu", bos_token_id=2, eos_token_id=3, pad_token_id=0, decoder_start_token_id=2),  # noqa: E501
    "gpt_bigcode": GPTBigCodeConfig(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=4, n_positions=POSITIONS, bos_token_id=3, eos_token_id=3, pad_token_id=3, decoder_start_token_id=3),  # noqa: E501
    "prophetnet": ProphetNetConfig(vocab_size=VOCAB, hidden_size=24, num_encoder_layers=2, num_decoder_layers=2, num_encoder_attention_heads=4, num_decoder_attention_heads=4, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=POSITIONS + 2, num_buckets=4, relative_max_distance=6, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1),  # noqa: E501
    "bart": BartConfig(**BART, max_position_embeddings=POSITIONS, bos_token_id=0, pad_token_id=1, eos_token_id=2, forced_eos_token_id=None, decoder_start_token_id=0),  # noqa: E501
    "mbart": MBartConfig(**BART, max_position_embeddings=POSITIONS, activation_function="relu", scale_embedding=True, bos_token_id=0, pad_token_id=1, eos_token_id=2, forced_eos_token_id=None, decoder_start_token_id=2),  # noqa: E501
    "whisper": WhisperConfig(**WHISPER),
    "bert-generation": BertGenerationConfig(**BERT | {"num_hidden_layers": 1}),
    "big_bird": BigBirdConfig(**BERT, sep_token_id=2, rescale_embeddings=True),
    "electra": ElectraConfig(**BERT | {"num_hidden_layers": 1}, embedding_size=20),
    "ernie": ErnieConfig(**BERT | {"num_hidden_layers": 1}, use_task_id=True),
    "megatron-bert": MegatronBertConfig(**BERT | {"num_hidden_layers": 1}),
    "rembert": RemBertConfig(**BERT | {"num_hidden_layers": 1}, input_embedding_size=20, output_embedding_size=28),  # noqa: E501
    "roc_bert": RoCBertConfig(**BERT | {"num_hidden_layers": 1}, pronunciation_vocab_size=10, pronunciation_embed_dim=6, shape_vocab_size=12, shape_embed_dim=10),  # noqa: E501
    "roformer": RoFormerConfig(**BERT, embedding_size=20, rotary_value=True),
    "trocr": TrOCRConfig(**BART, max_position_embeddings=POSITIONS, use_learned_position_embeddings=False, scale_embedding=True, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2),  # noqa: E501
    "roberta": RobertaConfig(**ROBERTA),
    "xlm-roberta": XLMRobertaConfig(**ROBERTA | {"num_hidden_layers": 1}),
    "camembert": CamembertConfig(**ROBERTA | {"num_hidden_layers": 1}),
    "data2vec-text": Data2VecTextConfig(**ROBERTA | {"num_hidden_layers": 1}),
    "xlm-roberta-xl": XLMRobertaXLConfig(**ROBERTA),
    "roberta-prelayernorm": RobertaPreLayerNormConfig(**ROBERTA | {"type_vocab_size": 2, "num_hidden_layers": 1}),  # noqa: E501
    "xmod": XmodConfig(**ROBERTA, languages=("en_XX",), default_language="en_XX"),
    "mvp": MvpConfig(**BART | {"decoder_layers": 1}, max_position_embeddings=POSITIONS, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2),  # noqa: E501
    "plbart": PLBartConfig(**BART | {"decoder_layers": 1}, max_position_embeddings=POSITIONS, scale_embedding=True, bos_token_id=0, pad_token_id=1, eos_token_id=2, forced_eos_token_id=None, decoder_start_token_id=0),  # noqa: E501
    "blenderbot": BlenderbotConfig(**BART | {"decoder_layers": 1}, max_position_embeddings=POSITIONS, scale_embedding=True, pad_token_id=0, bos_token_id=1, eos_token_id=2, forced_eos_token_id=None, encoder_no_repeat_ngram_size=0, decoder_start_token_id=1),  # noqa: E501
    "blenderbot-small": BlenderbotSmallConfig(**BART | {"decoder_layers": 1}, max_position_embeddings=POSITIONS, scale_embedding=True, pad_token_id=0, bos_token_id=1, eos_token_id=2, forced_eos_token_id=None, decoder_start_token_id=1),  # noqa: E501
    "pegasus": PegasusConfig(**BART, max_position_embeddings=POSITIONS, activation_function="relu", scale_embedding=True, bos_token_id=0, pad_token_id=0, eos_token_id=1, forced_eos_token_id=None, decoder_start_token_id=0),  # noqa: E501
    "marian": MarianConfig(**BART, max_position_embeddings=POSITIONS, activation_function="swish", scale_embedding=True, bos_token_id=0, pad_token_id=VOCAB - 1, eos_token_id=0, forced_eos_token_id=None, decoder_start_token_id=VOCAB - 1),  # noqa: E501
    "bigbird_pegasus": BigBirdPegasusConfig(**BART, max_position_embeddings=POSITIONS, activation_function="gelu_new", scale_embedding=True, use_bias=False, pad_token_id=0, bos_token_id=2, eos_token_id=1, decoder_start_token_id=2),  # noqa: E501
    "xglm": XGLMConfig(vocab_size=VOCAB, d_model=24, num_layers=2, attention_heads=4, ffn_dim=32, max_position_embeddings=POSITIONS, scale_embedding=True, bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2),  # noqa: E501
}
# fmt: on

SAMPLES = {"moonshine": 9_000}
"""Model types of the encoders that hear longer waveforms than others, and how long."""

FRAMES: dict[str, Callable[[Any], int]] = {
    "speech_to_text": lambda hf: hf.input_feat_per_channel * hf.input_channels,
    "parakeet_encoder": lambda hf: hf.num_mel_bins,
    "wav2vec2-bert": lambda hf: hf.feature_projection_input_dim,
    "seamless_m4t_v2": lambda hf: hf.feature_projection_input_dim,
}
"""Model types of the encoders that hear features ``[batch, frames, mels]``, and how many mels."""

PAIRS = [
    (tuple(ENCODERS)[number % len(ENCODERS)], tuple(DECODERS)[number % len(DECODERS)])
    for number in range(max(len(ENCODERS), len(DECODERS)))
]
"""As few pairs as hold every encoder and every decoder: they meet in nothing but states."""

SHALLOW = Wav2Vec2Config(
    **WAVEFORM
    | {"num_hidden_layers": 1, "conv_dim": (8,), "conv_kernel": (25,), "conv_stride": (20,)},
    feat_extract_norm="group",
)
"""An encoder that is quick to compile, for tests of what no encoder decides."""


def vary(config: Any, **fields: Any) -> Any:
    """Returns a copy of a configuration with other values of some fields."""
    copy = deepcopy(config)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


def joint(encoder: Any, decoder: Any, **fields: Any) -> SpeechEncoderDecoderConfig:
    """Returns the configuration of the pair; both halves are copied: upstream writes into them."""
    names = ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id")
    ids = {name: getattr(decoder, name) for name in names}
    return SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        deepcopy(encoder), deepcopy(decoder), **ids | fields
    )


def speech(encoder: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns what the encoder hears of three utterances, and which samples of them are real.

    The padding is noise, not silence: reading it where it should not be read changes the result.

    Returns:
        Waveforms float32 ``[3, samples]`` or features (Whisper's ``[3, mels, frames]``, others'
        ``[3, frames, mels]``); and a mask, int64 ``[3, samples]`` or ``[3, frames]``, of three
        lengths.
    """
    time = SAMPLES.get(encoder.model_type, 900)
    shape = (time,)
    if encoder.model_type == "whisper":
        time = 2 * encoder.max_source_positions
        shape = (encoder.num_mel_bins, time)
    elif encoder.model_type in FRAMES:
        time = 90
        shape = (time, FRAMES[encoder.model_type](encoder))
    inputs = np.random.default_rng(0).standard_normal((3, *shape)).astype(np.float32)
    lengths = np.array([time, time * 7 // 10, time // 2])
    return inputs, (np.arange(time) < lengths[:, None]).astype(np.int64)


def text() -> np.ndarray:
    """Returns labels int64 ``[3, 7]`` of three lengths; -100 does not count."""
    labels = np.random.default_rng(1).integers(5, VOCAB, (3, 7))
    return np.where(np.arange(7) < np.array([[7], [5], [2]]), labels, -100)
