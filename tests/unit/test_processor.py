"""Features and tokenizer beside a model: as transformers loads them, and as an encoder hears."""

import numpy as np
import pytest
from families import DECODERS, ENCODERS, joint, speech
from sounds import clips
from tokenizers import Tokenizer, models
from transformers import AutoProcessor, PreTrainedTokenizerFast

from speech_ed_flax import arguments
from speech_ed_flax.audio.features import (
    FEATURES,
    FilterBankFeatures,
    LogMelFeatures,
    StackedFeatures,
    WaveformFeatures,
)
from speech_ed_flax.conversion.processor import Processor, fit_features
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import build


def encoder(name):
    """Returns the frozen config of an encoder under test."""
    return build(joint(ENCODERS[name], DECODERS["bart"])).encoder.config


@pytest.mark.parametrize("kind", FEATURES)
def test_transformers_loads_every_kind_of_features_with_any_tokenizer(kind, tmp_path):
    pytest.importorskip("torch")
    words = Tokenizer(models.WordLevel({"<unk>": 0, "one": 1}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>")
    features = FEATURES[kind]()
    Processor(features, tokenizer).save(tmp_path)
    theirs = AutoProcessor.from_pretrained(tmp_path)
    assert type(theirs.feature_extractor).__name__ == kind
    clip = clips()[0]
    (found, *_) = theirs(clip, sampling_rate=16_000, return_tensors="pt").values()
    np.testing.assert_allclose(found, features.features([clip])[0], rtol=0, atol=1e-4)
    assert theirs.batch_decode([[1]]) == ["one"]
    assert Processor.load(tmp_path, tmp_path).features == features


def test_a_new_encoder_of_frames_hears_as_many_mels_as_its_config_says():
    assert fit_features(None, encoder("speech_to_text")) == FilterBankFeatures(num_mel_bins=10)


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("speech_to_text", WaveformFeatures()),
        ("speech_to_text", LogMelFeatures()),
        ("wav2vec2", StackedFeatures()),
        ("whisper", FilterBankFeatures()),
    ],
)
def test_features_of_another_kind_than_the_encoder_hears_are_refused(name, features):
    with pytest.raises(ConfigError, match=r"the encoder hears \[batch, .*\], its feature settings"):
        fit_features(features, encoder(name))


def test_frames_of_the_wrong_shape_are_refused_before_they_are_broadcast():
    inputs, mask = speech(ENCODERS["speech_to_text"])
    hears = encoder("speech_to_text")
    with pytest.raises(ConfigError, match=r"it must be \[batch, frames, mels\]"):
        arguments.speech(inputs[:, :, 0], None, hears)
    with pytest.raises(ConfigError, match="inputs has 9 mels and this encoder hears 10"):
        arguments.speech(inputs[:, :, :9], None, hears)
    with pytest.raises(ConfigError, match=r"attention_mask has shape .* it must be \[3, 90\]"):
        arguments.speech(inputs, mask[:, :-1], hears)
