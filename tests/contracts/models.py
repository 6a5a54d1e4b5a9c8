"""Models for the contracts: the families under test, further forms of them, random weights."""

from functools import cache
from typing import Any

import families
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import unflatten_dict
from transformers import HubertConfig, Wav2Vec2Config

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.model import abstract_params, build

STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}

ENCODERS: dict[str, Any] = {
    **families.ENCODERS,
    "wav2vec2-bottleneck": Wav2Vec2Config(**families.WAVEFORM, **STABLE, adapter_attn_dim=4),
    "hubert-batch-norm": HubertConfig(
        **families.WAVEFORM, conv_pos_batch_norm=True, feat_proj_layer_norm=False
    ),
}
DECODERS: dict[str, Any] = families.DECODERS

WAVEFORM_ENCODERS = [name for name, hf in ENCODERS.items() if hasattr(hf, "conv_dim")]
"""Encoders whose input has a mask and can be padded."""


def every_family_once() -> list[tuple[str, str]]:
    """Returns as few pairs as hold every encoder and every decoder."""
    count = max(len(ENCODERS), len(DECODERS))
    encoders, decoders = list(ENCODERS), list(DECODERS)
    return [(encoders[i % len(encoders)], decoders[i % len(decoders)]) for i in range(count)]


def make_model(
    encoder: Any, decoder: Any, padding: str = "exact", seed: int = 0
) -> FlaxSpeechEncoderDecoderModel:
    """Returns a model of two transformers configs, with random weights and nothing compiled."""
    config = families.joint(encoder, decoder)
    module = build(config, padding)
    params = random_params(module, seed)
    return FlaxSpeechEncoderDecoderModel(config, padding=padding, module=module, params=params)


@cache
def tiny_model(encoder: str, decoder: str, padding: str = "exact") -> FlaxSpeechEncoderDecoderModel:
    """Returns the model of two names of ``ENCODERS`` and ``DECODERS``; not to be changed."""
    return make_model(ENCODERS[encoder], DECODERS[decoder], padding)


def random_params(module: Any, seed: int = 0) -> dict[str, Any]:
    """Returns parameters so large that a wrong one, or one in a wrong place, shows."""
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
        return noise / np.sqrt(np.prod(shape[:-1]))
    if leaf in ("scale", "variance", "magnitude"):
        return np.exp(0.3 * noise)
    return noise if leaf == "embedding" else 0.3 * noise


def batch_of(lengths: list[int], samples: int, padding: float = 0.0) -> tuple[Any, Any]:
    """Returns clips ``[batch, samples]`` and mask; row ``i`` begins the same at any width."""
    waveforms = np.full((len(lengths), samples), padding, np.float32)
    for row, length in enumerate(lengths):
        waveforms[row, :length] = np.random.default_rng(row).standard_normal(length)
    return waveforms, np.arange(samples) < np.array(lengths)[:, None]


def assert_same_tree(found: Any, expected: Any) -> None:
    """Asserts that two trees have the same paths, dtypes and bits."""
    found, expected = (dict(jax.tree_util.tree_leaves_with_path(t)) for t in (found, expected))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert np.array_equal(np.asarray(found[path]), np.asarray(leaf)), path
