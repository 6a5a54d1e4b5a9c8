"""The kernels of attention compute what XLA does, where they can, and are refused where not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from accelerators.targets import HAS_CUDNN
from contracts.models import ENCODERS, make_model
from families import DECODERS, SHALLOW, joint

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers import attend as plain
from speech_ed_flax.layers import fused
from speech_ed_flax.layers.attend import attend
from speech_ed_flax.model import build

BATCH, HEADS, HEAD_DIM = 3, 2, 8


def draw(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def speech(target: int, source: int) -> list[jax.Array]:
    sizes = enumerate((target, source, source))
    return [draw(BATCH, HEADS, size, HEAD_DIM, seed=seed) for seed, size in sizes]


def some_keys(source: int) -> jax.Array:
    """Hides about half of the keys, and all of the last utterance."""
    seen = np.random.default_rng(3).random((BATCH, 1, 1, source)) < 0.5
    seen[-1] = False
    return jnp.asarray(seen)


interpreted = partial(fused.splash, interpret=True)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("target", "source"), [(130, 130), (256, 256), (384, 200)])
def test_splash_attention_computes_what_xla_does(target, source, masked):
    given = (*speech(target, source), some_keys(source) if masked else None)
    found, expected = interpreted(*given), plain._whole(*given, None)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert not masked or (found[-1] == 0).all()


def test_splash_attention_has_the_gradients_of_xla():
    given, mask = speech(140, 140), some_keys(140)

    def gradients(way):
        # Of a mean: every number of the result counts, differently.
        weight = draw(BATCH, HEADS, 140, HEAD_DIM, seed=7)
        return jax.grad(lambda *parts: jnp.sum(way(*parts, mask, None) * weight), (0, 1, 2))(*given)

    for found, expected in zip(gradients(interpreted), gradients(plain._whole), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def lowered(kernel: str, platform: str, dtype=jnp.float32, time: int = 130, **given) -> str:
    """Returns what this CPU would have an accelerator's compiler compile."""
    parts = [part.astype(dtype) for part in speech(time, time)]
    run = jax.jit(lambda *parts: attend(*parts, **given, kernel=kernel))
    return run.trace(*parts).lower(lowering_platforms=(platform,)).as_text()


def test_a_cpu_lowers_splash_attention_for_tpu_and_the_plain_one_for_itself():
    assert "tpu_custom_call" in lowered("splash", "tpu", mask=some_keys(130))
    for kernel, platform in (("xla", "tpu"), ("splash", "cpu"), ("splash", "cuda")):
        assert "custom_call" not in lowered(kernel, platform, mask=some_keys(130))


def test_the_formulation_of_a_cpu_is_not_lowered_for_an_accelerator(monkeypatch):
    monkeypatch.setattr(plain, "LARGE", 1)
    assert "while" in lowered("xla", "cpu")
    for platform in ("tpu", "cuda"):
        assert "while" not in lowered("xla", platform)


@pytest.mark.parametrize("reason", ["few queries", "a bias", "a mask of queries"])
def test_what_kernels_do_not_serve_is_left_to_xla(reason):
    time = 16 if reason == "few queries" else 130
    given = {
        "few queries": {"mask": some_keys(time)},
        "a bias": {"bias": draw(1, HEADS, time, time)},
        "a mask of queries": {"mask": jnp.tril(jnp.ones((1, 1, time, time), bool))},
    }[reason]
    assert "custom_call" not in lowered("splash", "tpu", time=time, **given)


@pytest.mark.skipif(not HAS_CUDNN, reason="no cuDNN: pip install nvidia-cudnn-cu13 brings it")
def test_a_cpu_lowers_cudnn_attention_for_nvidia():
    program = lowered("cudnn", "cuda", jnp.bfloat16, mask=some_keys(130))
    assert "__cudnn$fmhaScaleBiasSoftmax" in program
    assert "custom_call" not in lowered("cudnn", "cpu", jnp.bfloat16, mask=some_keys(130))


def test_missing_cudnn_says_what_to_use(monkeypatch):
    def missing(*_, **__):
        raise RuntimeError("cuDNN is not detected.")

    monkeypatch.setattr(jax.nn, "dot_product_attention", missing)
    with pytest.raises(ConfigError, match=r"not detected\.\): use attention='xla'"):
        lowered("cudnn", "cuda", jnp.bfloat16)


@pytest.mark.parametrize(
    ("kernel", "dtype", "backend", "complaint"),
    [
        ("flash", None, None, "'flash' is not known: use 'xla', 'cudnn' or 'splash'"),
        ("splash", jnp.float32, "cpu", "for 'tpu' and this process computes on 'cpu'"),
        ("cudnn", jnp.bfloat16, "tpu", "for 'gpu' and this process computes on 'tpu'"),
        ("cudnn", jnp.float32, "gpu", "not in float32: load the model with dtype='bfloat16'"),
    ],
)
def test_a_kernel_that_cannot_work_is_refused(kernel, dtype, backend, complaint):
    with pytest.raises(ConfigError, match=complaint):
        fused.check_kernel(kernel, dtype and jnp.dtype(dtype), backend)


@pytest.mark.parametrize(
    ("kernel", "dtype", "backend"),
    [("xla", jnp.float32, "cpu"), ("splash", jnp.float32, "tpu"), ("cudnn", jnp.bfloat16, "gpu")],
)
def test_a_kernel_that_works_is_not_refused(kernel, dtype, backend):
    fused.check_kernel(kernel, jnp.dtype(dtype), backend)


def test_a_model_is_built_with_the_kernel_in_every_layer():
    module = build(joint(ENCODERS["whisper"], DECODERS["whisper"]), attention="splash")
    assert (
        module.encoder.config.layer.attention == module.decoder.config.layer.attention == "splash"
    )
    with pytest.raises(ConfigError, match="'flash' is not known"):
        build(joint(SHALLOW, DECODERS["bart"]), attention="flash")


def test_the_front_door_refuses_a_kernel_for_another_backend(tmp_path):
    config = joint(SHALLOW, DECODERS["bart"])
    with pytest.raises(ConfigError, match="computes on 'cpu': use attention='xla'"):
        FlaxSpeechEncoderDecoderModel(config, attention="splash")
    make_model(SHALLOW, DECODERS["bart"]).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="computes on 'cpu': use attention='xla'"):
        FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path, attention="cudnn")


def test_the_front_door_keeps_the_kernel_when_padding_changes(monkeypatch):
    params = make_model(SHALLOW, DECODERS["bart"]).params
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    config = joint(SHALLOW, DECODERS["bart"])
    model = FlaxSpeechEncoderDecoderModel(config, attention="splash", params=params)
    assert model.with_padding("invariant").module.encoder.config.layer.attention == "splash"
