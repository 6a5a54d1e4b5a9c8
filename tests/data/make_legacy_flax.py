"""Makes the checkpoints of ``legacy_flax/`` with the last transformers that had Flax.

Run it where transformers 4.57.6, jax 0.4.38 and flax 0.10.2 are installed::

    python tests/data/make_legacy_flax.py

Every folder gets ``config.json``, ``flax_model.msgpack`` and ``expected.npz``: a waveform, its
mask, decoder tokens and the logits that FlaxSpeechEncoderDecoderModel computes for them.
"""

from pathlib import Path

import jax
import numpy as np
from transformers import (
    BartConfig,
    BertConfig,
    FlaxSpeechEncoderDecoderModel,
    GPT2Config,
    SpeechEncoderDecoderConfig,
    Wav2Vec2Config,
)

FOLDER = Path(__file__).parent / "legacy_flax"
TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 3}
VOCAB = 40

ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "conv_dim": (8, 8),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",  # the only kind that Flax could
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "layerdrop": 0.0,
    "vocab_size": VOCAB,
}


def bart(width):
    return BartConfig(
        d_model=width,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=20,
        decoder_ffn_dim=20,
        max_position_embeddings=32,
        vocab_size=VOCAB,
        **TOKENS,
    )


def gpt2(width):
    return GPT2Config(
        n_embd=width,
        n_layer=2,
        n_head=2,
        n_inner=20,
        n_positions=32,
        vocab_size=VOCAB,
        bos_token_id=0,
        eos_token_id=2,
    )


def bert(width):
    return BertConfig(
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        max_position_embeddings=32,
        vocab_size=VOCAB,
    )


# Flax projects where hidden_size is not the decoder's width, even if an adapter gives that width.
ADAPTER = {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 20}
CASES = {
    "bart_same_width": ({"mask_time_prob": 0.0}, bart(16)),
    "bert_projected": ({}, bert(20)),
    "gpt2_adapter_projected": (ADAPTER, gpt2(20)),
}


def randomise(params, seed):
    """Replaces every leaf by numbers large enough that a wrong one shows."""
    numbers = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = numbers.standard_normal(leaf.shape)
        name = path[-1].key
        if name in ("kernel", "weight_v"):
            noise /= np.sqrt(leaf.size / leaf.shape[-1])
        else:
            noise = np.exp(0.3 * noise) if name in ("scale", "weight_g") else 0.3 * noise
        return noise.astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, params)


def make(name, encoder, decoder, seed):
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**ENCODER, **encoder), decoder, **TOKENS
    )
    model = FlaxSpeechEncoderDecoderModel(config, input_shape=((1, 300), (1, 6)))
    params = randomise(model.params, seed)
    numbers = np.random.default_rng(seed)
    inputs = numbers.standard_normal((2, 300)).astype(np.float32)
    mask = np.arange(300) < np.array([[300], [220]])
    tokens = numbers.integers(4, VOCAB, (2, 6))
    logits = model(inputs, mask, tokens, params=params).logits
    model.save_pretrained(FOLDER / name, params=params)
    np.savez_compressed(
        FOLDER / name / "expected.npz",
        inputs=inputs,
        mask=mask,
        tokens=tokens,
        logits=np.asarray(logits),
    )
    for extra in set((FOLDER / name).iterdir()):
        if extra.name not in ("config.json", "flax_model.msgpack", "expected.npz"):
            extra.unlink()


if __name__ == "__main__":
    for seed, (name, (encoder, decoder)) in enumerate(CASES.items()):
        make(name, encoder, decoder, seed)
