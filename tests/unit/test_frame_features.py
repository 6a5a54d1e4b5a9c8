"""Features of as many frames as a clip has, against transformers' extractors."""

import time
import warnings

import numpy as np
import pytest
import transformers
from sounds import clips

from speech_ed_flax.audio.features import (
    FilterBankFeatures,
    ParakeetFeatures,
    StackedFeatures,
    from_hf,
)
from speech_ed_flax.errors import AudioError

RATE = 16_000
KINDS = [FilterBankFeatures, StackedFeatures, ParakeetFeatures]


def three() -> list[np.ndarray]:
    """The clips that no band of is the same throughout: three of them, of 3.1, 1.9 and 0.5 s."""
    noise, sweep, _, whisper = clips()
    return [noise, sweep, whisper]


@pytest.fixture
def in_numpy(monkeypatch):
    """Lets transformers compute filter banks as it does where torchaudio is not installed."""
    module = transformers.models.speech_to_text.feature_extraction_speech_to_text
    monkeypatch.setattr(module, "is_speech_available", lambda: False)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_mel_bins": 40, "padding_value": 0.5},
        {"normalize_vars": False},
        {"normalize_means": False},
        {"do_ceptral_normalize": False},
    ],
    ids=str,
)
def test_filter_banks_equal_transformers(fields, in_numpy):
    theirs = transformers.Speech2TextFeatureExtractor(**fields)
    found = theirs(three(), sampling_rate=RATE, padding=True, return_tensors="np")
    values, mask = from_hf(theirs.to_dict()).features(three())
    assert (values.dtype, mask.dtype) == (np.float32, np.bool_)
    # Where the mean stays, numbers are of the order of 100.
    size = np.abs(found["input_features"]).max(initial=10.0) / 10.0
    np.testing.assert_allclose(values / size, found["input_features"] / size, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(mask, found["attention_mask"].astype(bool))


@pytest.mark.parametrize("fields", [{}, {"num_mel_bins": 40, "padding_value": 1.0}], ids=str)
def test_stacked_frames_equal_transformers(fields):
    theirs = transformers.SeamlessM4TFeatureExtractor(**fields)
    found = theirs(three(), sampling_rate=RATE, return_tensors="np")
    values, mask = from_hf(theirs.to_dict()).features(three())
    assert (values.dtype, mask.dtype) == (np.float32, np.bool_)
    np.testing.assert_allclose(values, found["input_features"], rtol=0, atol=1e-5)
    np.testing.assert_array_equal(mask, found["attention_mask"].astype(bool))
    assert len({count % 2 for count in (1 + (len(c) - 400) // 160 for c in three())}) == 2


@pytest.mark.parametrize("fields", [{}, {"feature_size": 128, "preemphasis": 0.0}], ids=str)
def test_parakeets_frames_equal_transformers(fields):
    """It computes in float32, which shows where one band is far quieter than another."""
    pytest.importorskip("torch")
    theirs = transformers.ParakeetFeatureExtractor(**fields)
    noise = [three()[0], three()[0][20_000:31_234]]
    found = theirs(noise, sampling_rate=RATE, return_tensors="pt")
    values, mask = from_hf(theirs.to_dict()).features(noise)
    assert (values.dtype, mask.dtype) == (np.float32, np.bool_)
    np.testing.assert_allclose(values, found["input_features"], rtol=0, atol=1e-4)
    np.testing.assert_array_equal(mask, found["attention_mask"].numpy())


def test_parakeets_quiet_frames_equal_transformers_in_float64():
    torch = pytest.importorskip("torch")
    theirs = transformers.ParakeetFeatureExtractor(preemphasis=0.0)
    theirs.mel_filters = theirs.mel_filters.double()
    torch.set_default_dtype(torch.float64)  # of the window
    try:
        quiet = torch.from_numpy(three()[2].astype(np.float64))
        found = theirs._torch_extract_fbank_features(quiet[None])[0, : len(quiet) // 160]
    finally:
        torch.set_default_dtype(torch.float32)
    expected = (found - found.mean(0)) / (found.std(0) + 1e-5)
    values, mask = from_hf(theirs.to_dict()).features([three()[2]])
    np.testing.assert_allclose(values[0][mask[0]], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clip_gives_the_same_frames_alone_and_in_any_batch(kind):
    together, real = kind().features(three(), pad_to=60_000)
    for row, mask, clip in zip(together, real, three(), strict=True):
        alone, every = kind().features([clip])
        assert mask.sum() == every.sum()
        np.testing.assert_array_equal(row[mask], alone[0][every[0]])
        np.testing.assert_array_equal(row[: alone.shape[1]], alone[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("length", [0, 1, 399, 400, 560, 16_000])
def test_short_and_silent_clips_give_finite_frames_without_a_warning(kind, length):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values, mask = kind().features([np.zeros(length, np.float32)])
        wider, same = kind().features([np.zeros(length, np.float32)], pad_to=20_000)
    assert np.isfinite(values).all()
    assert values.shape[:2] == mask.shape
    assert mask.sum() == same.sum() == kind().positions(length)
    np.testing.assert_array_equal(wider[0][: len(values[0])], values[0])
    np.testing.assert_allclose(values, 0.0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_never_cut_and_of_one_channel(kind):
    with pytest.raises(AudioError, match="pad_to: 400 samples, the longest clip has 50000"):
        kind().features(clips(), pad_to=400)
    with pytest.raises(AudioError, match="clip 0"):
        kind().features([np.zeros((2, 400), np.float32)])


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_minute_takes_less_than_a_second(kind):
    clip = np.random.default_rng(0).standard_normal(30 * RATE).astype(np.float32)
    kind().features([clip])
    start = time.process_time()
    kind().features([clip])
    assert time.process_time() - start < 1.0
