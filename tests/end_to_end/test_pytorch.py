"""Folders go both ways between this package and PyTorch transformers, and lose nothing."""

import json
from copy import deepcopy

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contracts.models import DECODERS, assert_same_tree, make_model, tiny_model
from families import WAVEFORM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoFeatureExtractor,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
)

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.conversion.processor import Processor

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from safetensors.torch import load_file  # noqa: E402
from transformers import SpeechEncoderDecoderModel, WhisperForConditionalGeneration  # noqa: E402

SPEECH = np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32)
MASK = np.arange(400) < np.array([[400], [300]])
TOKENS = np.array([[3, 9, 30, 7, 8], [3, 11, 12, 2, 5]])

# Upstream sizes its projection by hidden_size: with an adapter it can only build models that need
# none, where the adapter's width is the decoder's.
ADAPTER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
WITH_ADAPTER = {
    decoder: Wav2Vec2Config(
        **WAVEFORM, **ADAPTER, add_adapter=True, num_adapter_layers=2,
        output_hidden_size=DECODERS[decoder].hidden_size,
    )
    for decoder in DECODERS
}  # fmt: skip


def model_of(encoder, decoder):
    if encoder == "wav2vec2-adapter":
        return make_model(WITH_ADAPTER[decoder], DECODERS[decoder])
    return tiny_model(encoder, decoder)


def in_pytorch(folder, kind=SpeechEncoderDecoderModel):
    """Loads a folder in PyTorch, which must find every tensor and use every tensor."""
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def logits_of(theirs):
    """Returns PyTorch's logits of the two utterances."""
    speech, mask = torch.from_numpy(SPEECH), torch.from_numpy(MASK.astype(np.int64))
    with torch.no_grad():
        # GPT-2 upstream crashes on an adapter's states, which are strided.
        states = theirs.encoder(speech, attention_mask=mask).last_hidden_state.contiguous()
        return theirs(
            encoder_outputs=(states,),
            attention_mask=mask,
            decoder_input_ids=torch.from_numpy(TOKENS),
        ).logits.numpy()


def state_of(folder):
    """Returns the tensors in a folder, as PyTorch's own reader reads them."""
    return load_file(folder / "model.safetensors")


ENCODER_NAMES = ["wav2vec2", "wav2vec2-adapter", "hubert", "hubert-batch-norm"]
DECODER_NAMES = ["bert", "gpt2", "bart", "mbart"]


SPELLED_OTHERWISE = ["bigbird_pegasus", "marian", "xglm"]
"""Decoders that save an output layer twice, sinusoids, or none of both."""


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        *zip(ENCODER_NAMES, DECODER_NAMES, strict=True),
        *(("wav2vec2", decoder) for decoder in SPELLED_OTHERWISE),
    ],
)
def test_pytorch_finds_and_uses_every_tensor_of_a_saved_folder(encoder, decoder, tmp_path):
    model_of(encoder, decoder).save_pretrained(tmp_path)
    theirs = in_pytorch(tmp_path)
    state, wanted = state_of(tmp_path), theirs.state_dict()
    addresses = {tensor.data_ptr(): name for name, tensor in wanted.items() if name in state}
    tied = {n: addresses.get(t.data_ptr()) for n, t in wanted.items() if n not in state}
    twice = state | {name: state[twin] for name, twin in tied.items() if twin}
    fresh = SpeechEncoderDecoderModel(deepcopy(theirs.config))
    fresh.load_state_dict(twice, strict=True)


@pytest.mark.parametrize(
    ("encoder", "decoder"), list(zip(ENCODER_NAMES, DECODER_NAMES, strict=True))
)
def test_pytorch_scores_the_same_with_a_saved_folder(encoder, decoder, tmp_path):
    ours = model_of(encoder, decoder)
    ours.save_pretrained(tmp_path)
    expected = logits_of(in_pytorch(tmp_path))
    found = ours(SPEECH, MASK, TOKENS).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_pytorch_loads_a_whole_whisper_as_its_own(tmp_path):
    ours = tiny_model("whisper", "whisper")
    ours.save_pretrained(tmp_path)
    theirs = in_pytorch(tmp_path, WhisperForConditionalGeneration)
    shape = (2, *ours.module.encoder.config.input_shape)
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        expected = theirs(
            torch.from_numpy(features), decoder_input_ids=torch.from_numpy(TOKENS)
        ).logits.numpy()
    found = ours(features, decoder_input_ids=TOKENS).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("encoder", ["wav2vec2", "hubert-batch-norm"])
@pytest.mark.parametrize("shard_size", [None, 20_000])
def test_pytorch_loads_shards_and_halves(encoder, shard_size, tmp_path):
    ours = tiny_model(encoder, "bart")
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), ours.params)
    ours.save_pretrained(tmp_path, params, **({"shard_size": shard_size} if shard_size else {}))
    theirs = in_pytorch(tmp_path)
    stored = theirs.decoder.get_input_embeddings().weight
    expected = np.asarray(params["decoder"]["tokens"]["embedding"], np.float32)
    assert (stored.float().detach().numpy() == expected).all()


@pytest.fixture(scope="module")
def pytorch_model():
    """A model that PyTorch made, with random weights of its own."""
    torch.manual_seed(0)
    config = deepcopy(tiny_model("wav2vec2", "bert").config)
    return SpeechEncoderDecoderModel(config).eval()


def expected_params(model, folder):
    """Returns the params that a PyTorch model's plain safetensors file gives."""
    model.save_pretrained(folder)
    return FlaxSpeechEncoderDecoderModel.from_pretrained(folder).params


def test_what_pytorch_saves_scores_the_same_here(pytorch_model, tmp_path):
    pytorch_model.save_pretrained(tmp_path)
    ours = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    found = ours(SPEECH, MASK, TOKENS).logits
    np.testing.assert_allclose(found, logits_of(pytorch_model), rtol=1e-5, atol=1e-5)


def test_shards_that_pytorch_saved_are_read(pytorch_model, tmp_path):
    expected = expected_params(pytorch_model, tmp_path / "whole")
    pytorch_model.save_pretrained(tmp_path / "shards", max_shard_size="30KB")
    assert (tmp_path / "shards" / "model.safetensors.index.json").exists()
    found = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path / "shards").params
    assert_same_tree(found, expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickles_that_pytorch_saved_are_read(pytorch_model, tmp_path, zipped):
    expected = expected_params(pytorch_model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(
        pytorch_model.state_dict(),
        tmp_path / "pytorch_model.bin",
        _use_new_zipfile_serialization=zipped,
    )
    assert_same_tree(FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path).params, expected)


def test_pickles_in_shards_are_read(pytorch_model, tmp_path):
    expected = expected_params(pytorch_model, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    names = sorted(pytorch_model.state_dict())
    homes = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(names)}
    for shard in set(homes.values()):
        part = {n: t for n, t in pytorch_model.state_dict().items() if homes[n] == shard}
        torch.save(part, tmp_path / shard)
    index = {"metadata": {}, "weight_map": homes}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert_same_tree(FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path).params, expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves_that_pytorch_saved_stay_halves(pytorch_model, tmp_path, dtype):
    deepcopy(pytorch_model).to(getattr(torch, dtype)).save_pretrained(tmp_path)
    found = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path, dtype=None).params
    embedding = found["decoder"]["tokens"]["embedding"]
    assert embedding.dtype == dtype
    theirs = pytorch_model.decoder.get_input_embeddings().weight.to(getattr(torch, dtype))
    assert (np.asarray(embedding, np.float32) == theirs.float().detach().numpy()).all()


def test_transformers_loads_the_processor_and_the_generation_config(tmp_path):
    words = {word: i for i, word in enumerate(("<s>", "<pad>", "</s>", "<unk>", "hello", "world"))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        unk_token="<unk>",
    )  # fmt: skip
    config = tiny_model("wav2vec2", "bart").config
    generation = GenerationConfig(max_length=17, num_beams=3, decoder_start_token_id=0)
    ours = tiny_model("wav2vec2", "bart")
    model = FlaxSpeechEncoderDecoderModel(
        deepcopy(config),
        params=ours.params,
        generation_config=generation,
        processor=Processor(WaveformFeatures(return_attention_mask=True), fast),
    )
    model.save_pretrained(tmp_path)

    speech = [np.ones(300, np.float32), np.arange(200, dtype=np.float32)]
    for loaded in (AutoProcessor, AutoFeatureExtractor):
        extractor = loaded.from_pretrained(tmp_path)
        features = extractor(speech, sampling_rate=16_000, padding=True, return_tensors="np")
        values, mask = model.processor.features.features(speech)
        np.testing.assert_allclose(features["input_values"], values, atol=1e-5)
        assert (features["attention_mask"] == mask).all()
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("hello world").input_ids == [4, 5]
    assert (again.pad_token_id, again.eos_token_id) == (1, 2)
    assert AutoProcessor.from_pretrained(tmp_path).decode([4, 5]) == "hello world"
    kept = GenerationConfig.from_pretrained(tmp_path)
    assert (kept.max_length, kept.num_beams, kept.decoder_start_token_id) == (17, 3, 0)
    here = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert here.processor.features == model.processor.features
    assert here.processor.text([[4, 5, 2]]) == ["hello world"]
