"""Tiny models for the contracts: one configuration for every form of encoder and decoder."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from transformers import (
    BartConfig,
    BertConfig,
    GPT2Config,
    HubertConfig,
    MBartConfig,
    SpeechEncoderDecoderConfig,
    Wav2Vec2Config,
    WhisperConfig,
)

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.model import abstract_params, build

VOCAB = 50
TOKEN_IDS = {
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}

WAVEFORM = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (8, 8, 12),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "vocab_size": VOCAB,
}
"""A wav2vec 2.0 that hears 40 samples a frame and makes a frame of every 20."""

BART = {
    "d_model": 24,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "max_position_embeddings": 32,
    "vocab_size": VOCAB,
    "forced_eos_token_id": None,
    **TOKEN_IDS,
}

WHISPER = {
    "d_model": 24,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 20,
    "decoder_ffn_dim": 20,
    "num_mel_bins": 8,
    "max_source_positions": 10,
    "max_target_positions": 32,
    "vocab_size": VOCAB,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    **TOKEN_IDS,
}

_STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
_ADAPTER = {"add_adapter": True, "num_adapter_layers": 2, "output_hidden_size": 20}

ENCODERS: dict[str, Callable[..., Any]] = {
    "wav2vec2_group": functools.partial(Wav2Vec2Config, **WAVEFORM),
    "wav2vec2_layer": functools.partial(Wav2Vec2Config, **WAVEFORM, **_STABLE),
    "wav2vec2_adapter": functools.partial(Wav2Vec2Config, **WAVEFORM, **_STABLE, **_ADAPTER),
    "hubert": functools.partial(HubertConfig, **WAVEFORM),
    "hubert_batch_norm": functools.partial(
        HubertConfig, **WAVEFORM, conv_pos_batch_norm=True, feat_proj_layer_norm=False
    ),
    "whisper": functools.partial(WhisperConfig, **WHISPER),
}

DECODERS: dict[str, Callable[..., Any]] = {
    "bart": functools.partial(BartConfig, **BART),
    "bert": functools.partial(
        BertConfig,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=32,
        vocab_size=VOCAB,
        is_decoder=True,
        add_cross_attention=True,
    ),
    "gpt2": functools.partial(
        GPT2Config,
        n_embd=24,
        n_layer=2,
        n_head=2,
        n_positions=32,
        vocab_size=VOCAB,
        bos_token_id=0,
        eos_token_id=2,
        add_cross_attention=True,
    ),
    "mbart": functools.partial(MBartConfig, **BART, scale_embedding=True),
    "whisper": functools.partial(WhisperConfig, **WHISPER),
}

MASKED = tuple(name for name in ENCODERS if name != "whisper")
"""Encoders of waveforms: they take a mask and can be padded."""

PAIRS = (
    ("wav2vec2_group", "bert"),
    ("wav2vec2_layer", "mbart"),
    ("wav2vec2_adapter", "gpt2"),
    ("hubert", "bart"),
    ("hubert_batch_norm", "whisper"),
    ("whisper", "bart"),
    ("whisper", "whisper"),
)
"""Every encoder and every decoder at least once."""


def joint_config(encoder: Any, decoder: Any) -> SpeechEncoderDecoderConfig:
    """Returns the configuration of a model of two transformers configs."""
    return SpeechEncoderDecoderConfig(
        encoder=encoder.to_dict(), decoder=decoder.to_dict(), **TOKEN_IDS
    )


def random_params(module: Any, seed: int = 0) -> dict[str, Any]:
    """Returns parameters large enough that a wrong one shows, drawn without compiling."""
    numbers = np.random.default_rng(seed)
    return unflatten_dict(
        {
            path: jnp.asarray(_draw(path.rpartition("/")[2], leaf.shape, numbers), jnp.float32)
            for path, leaf in abstract_params(module).items()
        },
        sep="/",
    )


def _draw(leaf: str, shape: tuple[int, ...], numbers: np.random.Generator) -> np.ndarray:
    noise = numbers.standard_normal(shape)
    if leaf in ("kernel", "direction"):
        return 1.5 * noise / np.sqrt(np.prod(shape[:-1]))
    if leaf in ("scale", "variance", "magnitude"):
        return np.exp(0.3 * noise)
    return noise if leaf == "embedding" else 0.3 * noise


def make_model(
    encoder: Any, decoder: Any, padding: str = "exact", seed: int = 0
) -> FlaxSpeechEncoderDecoderModel:
    """Returns a model of two transformers configs with random weights."""
    config = joint_config(encoder, decoder)
    module = build(config, padding)
    params = random_params(module, seed)
    return FlaxSpeechEncoderDecoderModel(config, padding=padding, module=module, params=params)


@functools.cache
def tiny_model(encoder: str, decoder: str, padding: str = "exact") -> FlaxSpeechEncoderDecoderModel:
    """Returns the model of two names of ``ENCODERS`` and ``DECODERS``; not to be changed."""
    return make_model(ENCODERS[encoder](), DECODERS[decoder](), padding)


def inputs_of(model: FlaxSpeechEncoderDecoderModel, batch: int, seed: int = 0) -> np.ndarray:
    """Returns random inputs that fit a model's encoder: 300 samples, or Whisper's features."""
    config = model.module.encoder.config
    shape = config.input_shape if model.config.encoder.model_type == "whisper" else (300,)
    return np.random.default_rng(seed).standard_normal((batch, *shape)).astype(np.float32)


def assert_same_tree(found: Any, expected: Any) -> None:
    """Asserts that two trees have the same paths, dtypes and bits."""
    found, expected = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (found, expected))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert np.array_equal(np.asarray(found[path]), np.asarray(leaf)), path
