"""Features against transformers' extractors, alone and in batches, and their JSON both ways."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import transformers
from sounds import clips

from speech_ed_flax.audio.features import (
    FilterBankFeatures,
    LogMelFeatures,
    ParakeetFeatures,
    SpeechT5Features,
    StackedFeatures,
    WaveformFeatures,
    from_hf,
)
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.errors import AudioError, ConfigError

RATE = 16_000
SPEECH = Path(__file__).parents[3] / "shared" / "data"


def speech() -> list[np.ndarray]:
    paths = [*sorted(SPEECH.glob("kathleen/flac/*.flac"))[:2]]
    paths += sorted(SPEECH.glob("an4/train/*.flac"))[:2]
    if not paths:
        pytest.skip("no speech beside the repository in ../shared/data")
    return [read_audio(path) for path in paths]


# --- waveforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Wav2Vec2FeatureExtractor", "SpeechT5FeatureExtractor"])
@pytest.mark.parametrize("do_normalize", [True, False])
@pytest.mark.parametrize("pad_to", [None, 64_000])
def test_a_batch_of_waveforms_equals_transformers(kind, do_normalize, pad_to):
    extractor = getattr(transformers, kind)(do_normalize=do_normalize, return_attention_mask=True)
    theirs = extractor(
        clips(),
        sampling_rate=RATE,
        padding="max_length" if pad_to else "longest",
        max_length=pad_to,
        return_tensors="np",
    )
    values, mask = from_hf(extractor.to_dict()).features(clips(), pad_to)
    assert (values.dtype, mask.dtype) == (np.float32, np.bool_)
    np.testing.assert_allclose(values, theirs["input_values"], atol=1e-6)
    np.testing.assert_array_equal(mask, theirs["attention_mask"].astype(bool))


@pytest.mark.parametrize("return_attention_mask", [True, False])
def test_a_waveform_gives_the_same_values_alone_in_a_batch_and_in_transformers(
    return_attention_mask,
):
    theirs = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=return_attention_mask)
    ours = from_hf(theirs.to_dict())
    values, _ = ours.features(clips(), pad_to=60_000)
    for row, clip in zip(values, clips(), strict=True):
        alone = theirs(clip, sampling_rate=RATE, return_tensors="np")["input_values"][0]
        np.testing.assert_allclose(row[: len(clip)], alone, atol=1e-6)
        np.testing.assert_array_equal(row[len(clip) :], 0.0)


def test_padding_is_filled_with_the_padding_value_after_normalising():
    values, mask = WaveformFeatures(padding_value=-2.0).features(clips())
    assert np.all(values[~mask] == -2.0)
    assert abs(values[1][mask[1]].mean()) < 1e-5


def test_real_speech_equals_transformers():
    sounds = speech()
    theirs = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        sounds, sampling_rate=RATE, padding=True, return_tensors="np"
    )
    values, _ = WaveformFeatures().features(sounds)
    np.testing.assert_allclose(values, theirs["input_values"], atol=1e-6)


@pytest.mark.parametrize("clip", [np.zeros(0, np.float32), np.zeros(500, np.float32)])
def test_empty_and_silent_waveforms_are_zeros_without_a_warning(clip):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, mask = WaveformFeatures().features([clip], pad_to=800)
        alone, _ = WaveformFeatures().features([clip])
    np.testing.assert_array_equal(values, np.zeros((1, 800)))
    assert mask.sum() == alone.size == len(clip)


def test_no_clips_give_an_empty_batch():
    values, mask = WaveformFeatures().features([], pad_to=400)
    assert values.shape == mask.shape == (0, 400)


def test_waveforms_are_never_cut_and_never_stereo():
    with pytest.raises(AudioError, match="pad_to: 400 samples, the longest clip has 50000"):
        WaveformFeatures().features(clips(), pad_to=400)
    with pytest.raises(AudioError, match="clip 0"):
        WaveformFeatures().features([np.zeros((2, 400), np.float32)])


# --- log-mel --------------------------------------------------------------------------------------


def their_numpy_log_mel(
    theirs: transformers.WhisperFeatureExtractor, clip: np.ndarray, width: int
) -> np.ndarray:
    """What transformers computes where torch is not installed."""
    padded = np.pad(clip[:width], (0, max(0, width - len(clip))))
    return theirs._np_extract_fbank_features(padded[None], "cpu")[0]


@pytest.mark.parametrize("feature_size", [80, 128])
@pytest.mark.parametrize("chunk_length", [2, 30])
def test_log_mel_equals_transformers_in_numpy(feature_size, chunk_length):
    theirs = transformers.WhisperFeatureExtractor(feature_size, chunk_length=chunk_length)
    values, _ = from_hf(theirs.to_dict()).features(clips())
    assert values.dtype == np.float32
    assert values.shape == (4, feature_size, chunk_length * 100)
    for row, clip in zip(values, clips(), strict=True):
        expected = their_numpy_log_mel(theirs, clip, chunk_length * RATE)
        np.testing.assert_allclose(row, expected, atol=1e-5)


@pytest.mark.parametrize("pad_to", [None, 48_000, 48_100])
def test_log_mel_and_its_mask_equal_transformers_in_torch(pad_to):
    pytest.importorskip("torch")
    random = np.random.default_rng(1)
    noise = [0.2 * random.standard_normal(length).astype(np.float32) for length in (50_000, 9_000)]
    theirs = transformers.WhisperFeatureExtractor()(
        noise,
        sampling_rate=RATE,
        max_length=pad_to,
        return_attention_mask=True,
        return_tensors="np",
    )
    values, mask = LogMelFeatures().features(noise, pad_to)
    np.testing.assert_allclose(values, theirs["input_features"], atol=1e-5)
    np.testing.assert_array_equal(mask, theirs["attention_mask"].astype(bool))


def test_log_mel_of_real_speech_is_as_near_to_torch_as_transformers_in_numpy():
    """torch computes in float32, which shows in bands some 80 dB below the loudest one."""
    pytest.importorskip("torch")
    sounds, theirs = speech(), transformers.WhisperFeatureExtractor()
    values, _ = LogMelFeatures().features(sounds)
    in_torch = theirs(sounds, sampling_rate=RATE, return_tensors="np")["input_features"]
    in_numpy = np.stack([their_numpy_log_mel(theirs, sound, 30 * RATE) for sound in sounds])
    np.testing.assert_allclose(values, in_numpy, atol=1e-5)
    assert np.abs(values - in_torch).max() <= np.abs(in_numpy - in_torch).max() + 1e-6
    assert np.mean(np.abs(values - in_torch) > 1e-5) < 1e-5


def test_an_empty_clip_is_silence_in_log_mel_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, mask = LogMelFeatures(chunk_length=1).features([np.zeros(0, np.float32)])
    np.testing.assert_array_equal(values, np.full((1, 80, 100), -1.5))
    assert not mask.any()


def test_log_mel_refuses_a_width_without_frames():
    with pytest.raises(AudioError, match="pad_to: 100 samples"):
        LogMelFeatures().features(clips(), pad_to=100)


# --- JSON -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ours",
    [
        WaveformFeatures(),
        WaveformFeatures(8_000, do_normalize=False, return_attention_mask=True, padding_value=0.5),
        LogMelFeatures(),
        LogMelFeatures(feature_size=128, chunk_length=10, hop_length=200, n_fft=512),
        FilterBankFeatures(),
        FilterBankFeatures(8_000, 40, 0.5, False, normalize_means=False, normalize_vars=False),
        StackedFeatures(),
        StackedFeatures(8_000, 40, padding_value=1.0, return_attention_mask=False),
        ParakeetFeatures(),
        ParakeetFeatures(8_000, 128, hop_length=80, n_fft=256, win_length=200, preemphasis=0.0),
    ],
)
def test_transformers_loads_what_we_write_and_we_load_what_it_writes(ours, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ours.to_hf()))
    theirs = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(theirs).__name__ == ours.to_hf()["feature_extractor_type"]
    assert theirs.to_dict() == ours.to_hf()
    assert from_hf(theirs.to_dict()) == from_hf(ours.to_hf()) == ours


def test_what_speecht5_is_to_say_is_no_part_of_what_it_hears(tmp_path):
    theirs = transformers.SpeechT5FeatureExtractor(do_normalize=True, num_mel_bins=40)
    ours = from_hf(theirs.to_dict())
    assert ours == SpeechT5Features(do_normalize=True)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(ours.to_hf()))
    again = transformers.AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(again) is transformers.SpeechT5FeatureExtractor
    assert from_hf(again.to_dict()) == ours


def test_the_first_wav2vec2_files_name_no_type():
    fields = {
        "do_normalize": True,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
    }
    assert from_hf(fields) == WaveformFeatures()


def test_stored_mel_filters_are_ignored_as_transformers_ignores_them():
    fields = {**LogMelFeatures().to_hf(), "mel_filters": [[0.0]], "processor_class": "Whisper"}
    assert from_hf(fields) == LogMelFeatures()


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("Wav2Vec2FeatureExtractor", "feature_size", 80),
        ("Wav2Vec2FeatureExtractor", "padding_side", "left"),
        ("Wav2Vec2FeatureExtractor", "do_normalize", "yes"),
        ("Wav2Vec2FeatureExtractor", "padding_value", None),
        ("Wav2Vec2FeatureExtractor", "sampling_rate", 0),
        ("WhisperFeatureExtractor", "padding_side", "left"),
        ("WhisperFeatureExtractor", "padding_value", 1.0),
        ("WhisperFeatureExtractor", "dither", 1e-4),
        ("WhisperFeatureExtractor", "hop_length", True),
        ("WhisperFeatureExtractor", "n_fft", -400),
        ("Speech2TextFeatureExtractor", "padding_side", "left"),
        ("Speech2TextFeatureExtractor", "dither", 4.0),
        ("Speech2TextFeatureExtractor", "num_mel_bins", 0),
        ("SeamlessM4TFeatureExtractor", "stride", 3),
        ("ParakeetFeatureExtractor", "padding_value", 1.0),
        ("ParakeetFeatureExtractor", "preemphasis", None),
        ("SpeechT5FeatureExtractor", "feature_size", 2),
        ("ClapFeatureExtractor", "feature_extractor_type", "ClapFeatureExtractor"),
        (None, "feature_extractor_type", None),
    ],
)
def test_what_would_change_the_computation_is_refused_by_name(kind, field, value):
    with pytest.raises(ConfigError, match=f"^{field}: "):
        from_hf({"feature_extractor_type": kind, field: value})
