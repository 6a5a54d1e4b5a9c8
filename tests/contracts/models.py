"""Models for the contracts: the families under test, further forms of them, random weights."""

from copy import deepcopy
from functools import cache
from typing import Any

import families
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from transformers import HubertConfig, Wav2Vec2Config

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.speech_to_text_2 import Speech2Text2Config
from speech_ed_flax.model import abstract_params, build

ENCODERS: dict[str, Any] = {
    **families.ENCODERS,
    "hubert-batch-norm": HubertConfig(
        **families.WAVEFORM,
        feat_extract_norm="group",
        do_stable_layer_norm=True,
        feat_proj_layer_norm=False,
        conv_pos_batch_norm=True,
        adapter_attn_dim=4,
    ),
}
DECODERS: dict[str, Any] = {
    **families.DECODERS,
    "speech_to_text_2": Speech2Text2Config(  # with which transformers has nothing to compare
        vocab_size=families.VOCAB,
        d_model=24,
        decoder_layers=2,
        decoder_ffn_dim=32,
        max_target_positions=families.POSITIONS,
    ),
}

KINDS = (
    *("bert", "big_bird", "ernie", "roberta", "roc_bert", "roformer", "xlm-roberta-xl", "xmod"),
    *("gpt2", "gpt_bigcode", "prophetnet", "trocr", "bart", "mbart", "marian", "whisper"),
)
"""Decoders of which no two cache, mask and count tokens by the same code. What all families do is
compared with PyTorch; here is what a family shares with those it is made like."""

PADDED_ENCODERS = [name for name, hf in ENCODERS.items() if hf.model_type != "whisper"]
"""Encoders whose input has a mask and can be padded."""

SHALLOW_ENCODER = Wav2Vec2Config(
    **families.WAVEFORM | {"num_hidden_layers": 1},
    feat_extract_norm="group",
    add_adapter=True,
    num_adapter_layers=1,
    output_hidden_size=20,
)
"""Group norm and adapter, which both read padding in exact mode, and quick to compile."""


def every_family_once() -> list[tuple[str, str]]:
    """Returns as few pairs as hold every encoder and every decoder."""
    count = max(len(ENCODERS), len(DECODERS))
    encoders, decoders = list(ENCODERS), list(DECODERS)
    return [(encoders[i % len(encoders)], decoders[i % len(decoders)]) for i in range(count)]


def make_model(
    encoder: Any, decoder: Any, padding: str = "exact", seed: int = 0, heard: float = 1.5
) -> FlaxSpeechEncoderDecoderModel:
    """Returns a model of two transformers configs, with random weights and nothing compiled.

    The weights of the cross-attention are ``heard`` times as large as the others, so that the text
    depends on the speech. At 3 one unit in the last place of the encoder's states moves the logits
    of two layers by 1.4e-5: more than contracts allow for all rounding together.
    """
    config = families.joint(encoder, decoder)
    module = build(config, padding)
    params = random_params(module, seed, heard)
    return FlaxSpeechEncoderDecoderModel(config, padding=padding, module=module, params=params)


@cache
def tiny_model(encoder: str, decoder: str, padding: str = "exact") -> FlaxSpeechEncoderDecoderModel:
    """Returns the model of two names of ``ENCODERS`` and ``DECODERS``; not to be changed."""
    return make_model(ENCODERS[encoder], DECODERS[decoder], padding)


@cache
def shallow_model(decoder: str, padding: str = "exact") -> FlaxSpeechEncoderDecoderModel:
    """Returns a model that is quick to compile: ``SHALLOW_ENCODER``, a decoder of one layer."""
    hf = deepcopy(DECODERS[decoder])
    # ProphetNet has no num_hidden_layers that could be set.
    own = hasattr(hf, "num_decoder_layers")
    for name in ("num_decoder_layers",) if own else ("num_hidden_layers", "decoder_layers"):
        if hasattr(hf, name):
            setattr(hf, name, 1)
    return make_model(SHALLOW_ENCODER, hf, padding, heard=3.0)


def random_params(module: Any, seed: int = 0, heard: float = 1.5) -> dict[str, Any]:
    """Returns parameters so large that a wrong one shows, and logits of the order of 1."""
    numbers = np.random.default_rng(seed)
    flat = {
        path: jnp.asarray(_draw(path, leaf.shape, numbers, heard), jnp.float32)
        for path, leaf in abstract_params(module).items()
    }
    return unflatten_dict(flat, sep="/")


def _draw(
    path: str, shape: tuple[int, ...], numbers: np.random.Generator, heard: float
) -> np.ndarray:
    leaf = path.rpartition("/")[2]
    if leaf == "weight":
        size = heard if "cross_attention" in path else 1.0
        return size * numbers.standard_normal(shape[::-1]).T / np.sqrt(shape[-1])
    noise = numbers.standard_normal(shape)
    if leaf in ("kernel", "direction"):
        return noise / np.sqrt(np.prod(shape[:-1]))
    if leaf in ("scale", "variance", "magnitude"):
        return np.exp(0.3 * noise)
    return 0.3 * noise


def batch_of(
    lengths: list[int], samples: int, padding: float = 0.0, mels: tuple[int, ...] = ()
) -> tuple[Any, Any]:
    """Returns clips ``[batch, samples]`` and mask; row ``i`` begins the same at any width.

    With ``mels`` they are frames of so many numbers.
    """
    clips = np.full((len(lengths), samples, *mels), padding, np.float32)
    for row, length in enumerate(lengths):
        clips[row, :length] = np.random.default_rng(row).standard_normal((length, *mels))
    return clips, np.arange(samples) < np.array(lengths)[:, None]


def assert_same_tree(found: Any, expected: Any) -> None:
    """Asserts that two trees have the same paths, dtypes and bits."""
    found, expected = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (found, expected))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert np.array_equal(np.asarray(found[path]), np.asarray(leaf)), path


def assert_close(found: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Asserts that two arrays are finite and nowhere further apart than ``tolerance``."""
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
