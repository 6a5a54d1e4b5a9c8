"""Reading sound: five codecs good and damaged, headers that lie, things that are not sound."""

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from sounds import CODECS, CONTAINERS, encode

from speech_ed_flax.audio.errors import (
    AudioCorruptError,
    AudioFormatError,
    AudioLimitError,
    AudioTruncatedError,
    NonFiniteAudioError,
)
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.errors import AudioError

RATE = 16_000
SPEECH = Path(__file__).parents[3] / "shared" / "data"


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """A chord that comes and goes, with some noise, so that every codec has work to do."""
    time = np.arange(int(seconds * rate)) / rate
    sound = 0.3 * np.sin(2 * np.pi * 440 * time) * np.sin(2 * np.pi * time) ** 2
    sound = sound + 0.02 * np.random.default_rng(0).standard_normal(len(time))
    return np.stack([sound] * channels, axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    return {codec: encode(tone(3.0), **format_) for codec, format_ in CODECS.items()}


def patched(data: bytes, at: int, field: str, value: int) -> bytes:
    return data[:at] + struct.pack(field, value) + data[at + struct.calcsize(field) :]


def data_size_at(wav: bytes) -> int:
    return wav.index(b"data") + 4


# --- good files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
def test_reads_what_soundfile_reads(codec, recordings, tmp_path):
    path = tmp_path / f"speech.{codec}"
    path.write_bytes(recordings[codec])
    expected, _ = soundfile.read(path, dtype="float32")
    sound = read_audio(path, rate=soundfile.info(path).samplerate)
    assert sound.dtype == np.float32
    np.testing.assert_allclose(sound, expected, atol=1e-6)


@pytest.mark.parametrize("codec", CODECS)
def test_a_path_bytes_and_a_stream_give_the_same_samples(codec, recordings, tmp_path):
    path = tmp_path / "speech.bin"
    path.write_bytes(recordings[codec])
    expected = read_audio(str(path))
    np.testing.assert_array_equal(read_audio(path.read_bytes()), expected)
    np.testing.assert_array_equal(read_audio(io.BytesIO(path.read_bytes())), expected)
    with path.open("rb") as stream:
        np.testing.assert_array_equal(read_audio(stream), expected)


@pytest.mark.parametrize("codec", CODECS)
def test_garbage_after_the_sound_changes_nothing(codec, recordings):
    expected = read_audio(recordings[codec])
    garbage = np.random.default_rng(1).bytes(5_000)
    np.testing.assert_array_equal(read_audio(recordings[codec] + garbage), expected)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_resampling_in_blocks_equals_resampling_at_once(rate):
    sound = tone(1.7, rate)
    expected = soxr.resample(sound[:, 0], rate, RATE, quality="HQ")
    np.testing.assert_allclose(read_audio((sound, rate)), expected, atol=1e-6)
    assert abs(len(expected) - 1.7 * RATE) <= 1


def test_channels_are_mixed_down_to_their_mean(tmp_path):
    sound = tone(0.5, channels=3) * np.array([1.0, 0.5, 0.0], np.float32)
    path = tmp_path / "three.wav"
    path.write_bytes(encode(sound, format="WAV", subtype="FLOAT"))
    np.testing.assert_allclose(read_audio(path), sound.mean(axis=1), atol=1e-7)


def test_a_wav_file_named_raw_is_read_by_its_content(recordings, tmp_path):
    path = tmp_path / "speech.raw"
    path.write_bytes(recordings["wav"])
    assert len(read_audio(path)) == 3 * RATE


@pytest.mark.parametrize("format_", CONTAINERS.values(), ids=CONTAINERS)
def test_other_containers_are_read(format_):
    sound = tone(1.0)
    decoded = read_audio(encode(sound, **format_))
    assert RATE <= len(decoded) < RATE + 1_100  # ADPCM fills its last block
    assert np.abs(decoded[:RATE] - sound[:, 0]).mean() < 0.02  # four bits a sample in ADPCM


@pytest.mark.parametrize("name", ["speech.raw", "speech.vox", "speech.gsm", "speech.wav"])
def test_headerless_samples_are_never_guessed(name, tmp_path):
    path = tmp_path / name
    path.write_bytes((tone(0.1)[:, 0] * 32_767).astype("<i2").tobytes())
    with pytest.raises(AudioFormatError, match=re.escape(str(path))):
        read_audio(path)


def test_a_file_without_frames_is_an_empty_array():
    sound = read_audio(encode(tone(0.0), rate=44_100, **CODECS["wav"]))
    assert sound.shape == (0,)
    assert sound.dtype == np.float32


def test_a_single_sample_is_read():
    assert read_audio(encode(tone(1 / RATE), **CODECS["wav"])).shape == (1,)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFF - 36, 0x7FFFF000, 0x80000000])
def test_a_wav_file_written_to_a_pipe_is_good(size, recordings):
    wav = recordings["wav"]
    streamed = patched(wav, data_size_at(wav), "<I", size)
    np.testing.assert_array_equal(read_audio(streamed), read_audio(wav))


def test_a_wav_file_whose_data_size_includes_its_header_is_good(recordings):
    wav = recordings["wav"]
    mistaken = patched(wav, data_size_at(wav), "<I", len(wav))
    np.testing.assert_array_equal(read_audio(mistaken), read_audio(wav))


def test_a_flac_file_of_unannounced_length_is_good(recordings):
    flac = recordings["flac"]
    streamed = flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
    np.testing.assert_array_equal(read_audio(streamed), read_audio(flac))


def test_an_mp3_file_without_xing_tag_is_read_to_its_end(recordings):
    mp3 = recordings["mp3"]
    bare = mp3[mp3.index(b"\xff\xf3", 4) :]
    expected = read_audio(mp3)
    sound = read_audio(bare)
    # Without the tag the encoder's delay and padding, up to two MP3 frames, stay in.
    assert len(expected) <= len(sound) <= len(expected) + 2 * 1_152
    with soundfile.SoundFile(io.BytesIO(bare)) as naive:
        assert naive.frames < 0.9 * len(sound), "libsndfile counts right: drop the workaround"


def test_an_mp3_file_with_an_id3_tag_is_good(recordings):
    tag = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256)
    np.testing.assert_array_equal(
        read_audio(tag + recordings["mp3"]), read_audio(recordings["mp3"])
    )


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("size", [1, 20, 44])
def test_a_file_cut_in_its_header_is_refused(codec, size, recordings, tmp_path):
    path = tmp_path / f"cut.{codec}"
    path.write_bytes(recordings[codec][:size])
    with pytest.raises(AudioError, match=re.escape(f"{path}: ")):
        read_audio(path)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_file_cut_in_its_sound_is_refused(codec, part, recordings, tmp_path):
    path = tmp_path / f"cut.{codec}"
    path.write_bytes(recordings[codec][: int(len(recordings[codec]) * part)])
    with pytest.raises(AudioTruncatedError, match=rf"cut.{codec}: .*\(use --allow-truncated\)"):
        read_audio(path)


@pytest.mark.parametrize("codec", CODECS)
def test_allow_truncated_keeps_the_beginning_and_warns(codec, recordings, caplog):
    whole, cut = recordings[codec], recordings[codec][: int(len(recordings[codec]) * 0.9)]
    sound = read_audio(cut, allow_truncated=True)
    expected = read_audio(whole)
    assert 0.3 * len(expected) < len(sound) < len(expected)
    settled = len(sound) - 4_000  # lossy codecs and the resampler end differently
    np.testing.assert_allclose(sound[:settled], expected[:settled], atol=1e-4)
    assert "<bytes>: " in caplog.text


def test_truncation_is_told_in_frames(recordings):
    wav = recordings["wav"]
    with pytest.raises(AudioTruncatedError, match="header says 48000 frames, 23989 found"):
        read_audio(wav[: len(wav) // 2])
    flac = recordings["flac"]
    with pytest.raises(AudioTruncatedError, match=r"header says 48000 frames, \d+ found"):
        read_audio(flac[: len(flac) // 2])


@pytest.mark.parametrize("codec", ["flac", "ogg", "opus", "mp3"])
def test_zeros_in_the_middle_are_damage_not_truncation(codec, recordings, tmp_path):
    data, path = bytearray(recordings[codec]), tmp_path / f"zeros.{codec}"
    data[len(data) // 2 : len(data) // 2 + 2_000] = bytes(2_000)
    path.write_bytes(data)
    with pytest.raises(AudioCorruptError, match=rf"zeros.{codec}: "):
        read_audio(path)


def test_damage_is_placed_in_seconds(recordings):
    data = bytearray(recordings["flac"])
    data[len(data) // 2 : len(data) // 2 + 2_000] = bytes(2_000)
    with pytest.raises(AudioCorruptError, match=r"damaged 1\.\d\d s from its start"):
        read_audio(bytes(data))


@pytest.mark.parametrize("codec", CODECS)
def test_flipped_bits_give_an_audio_error_or_all_the_frames(codec, recordings):
    random, frames = np.random.default_rng(2), len(read_audio(recordings[codec]))
    for _ in range(40):
        data = bytearray(recordings[codec])
        for at in random.integers(0, len(data), size=50):
            data[at] ^= 1 << random.integers(8)
        try:
            sound = read_audio(bytes(data), rate=RATE, max_seconds=60.0)
        except AudioError:
            continue
        assert np.isfinite(sound).all()
        assert codec in ("wav", "mp3") or len(sound) == frames


@pytest.mark.parametrize("codec", CODECS)
def test_garbage_before_the_sound_is_refused(codec, recordings):
    with pytest.raises(AudioFormatError):
        read_audio(b"garbage!" * 9 + recordings[codec])


def test_a_wav_header_that_was_never_finished_is_refused(recordings):
    wav = recordings["wav"]
    with pytest.raises(AudioCorruptError, match="never finished"):
        read_audio(patched(wav, data_size_at(wav), "<I", 0))


def test_joined_mp3_files_are_refused_because_only_the_first_would_be_heard(recordings):
    with pytest.raises(AudioFormatError, match="joined end to end"):
        read_audio(recordings["mp3"] * 2)


# --- not sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"\0", "nothing but zero bytes"),
        (bytes(4_096), "nothing but zero bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n", "run git lfs pull"),
        (b"\n<!DOCTYPE html><html><body>Not found</body></html>", "an HTML page"),
        (b"hello, this is a transcript", "text"),
        ("Grüße aus Köln".encode(), "text"),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "a PNG image"),
        (b"RIFF\x24\0\0\0WEBP", "not a sound file"),
        (b"\x01", "not a sound file"),
    ],
)
def test_what_is_not_sound_is_called_by_its_name(content, reason, tmp_path):
    path = tmp_path / "speech.wav"
    path.write_bytes(content)
    with pytest.raises(AudioFormatError, match=re.escape(reason)) as caught:
        read_audio(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_directory_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(AudioFormatError, match="is a directory"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match=r"missing\.wav: no such file"):
        read_audio(tmp_path / "missing.wav")


@pytest.mark.timeout(20)
def test_pipes_and_devices_are_refused_at_once(tmp_path):
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(AudioFormatError, match="not a regular file"):
            read_audio(path)


def test_a_stream_of_text_is_refused():
    with pytest.raises(AudioFormatError, match="'rb'"):
        read_audio(io.StringIO("RIFF"))


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0, 1, 3_999, 768_001, 4_000_000_000])
def test_rates_outside_the_limits_are_refused(rate, recordings):
    with pytest.raises(AudioError, match="<bytes>: "):
        read_audio(patched(recordings["wav"], 24, "<I", rate))
    with pytest.raises(AudioLimitError, match=f"{rate} Hz"):
        read_audio((np.zeros(8, np.float32), rate))


@pytest.mark.parametrize("channels", [0, 65, 1_024, 65_535])
def test_channels_outside_the_limits_are_refused(channels, recordings):
    with pytest.raises(AudioError, match="<bytes>: "):
        read_audio(patched(recordings["wav"], 22, "<H", channels))


@pytest.mark.parametrize("bits", [0, 7])
def test_sample_widths_that_do_not_exist_never_give_more_than_sound(bits, recordings):
    data = patched(recordings["wav"], 34, "<H", bits)
    try:
        sound = read_audio(data)
    except AudioError:
        return
    assert np.isfinite(sound).all()
    assert len(sound) <= 2 * 3 * RATE


@pytest.mark.parametrize("codec", CODECS)
def test_a_recording_beyond_max_seconds_is_refused(codec, recordings):
    assert len(read_audio(recordings[codec], max_seconds=3.2)) > 0
    with pytest.raises(AudioLimitError, match=r"3\.\d s of sound, 2 s are accepted"):
        read_audio(recordings[codec], max_seconds=2.0)


def test_a_bomb_is_refused_from_its_header(recordings):
    flac = recordings["flac"]
    bomb = flac[:21] + bytes([flac[21] & 0xF0]) + struct.pack(">I", 36_000 * RATE) + flac[26:]
    with pytest.raises(AudioLimitError, match=r"36000\.0 s of sound"):
        read_audio(bomb, max_seconds=3_600)


def test_max_seconds_also_stops_sound_of_unannounced_length(recordings):
    flac = recordings["flac"]
    streamed = flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]
    with pytest.raises(AudioLimitError):
        read_audio(streamed, max_seconds=1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_no_numbers_are_refused_with_their_place(bad, tmp_path):
    sound = tone(1.0, channels=2)
    sound[RATE // 2, 1] = bad
    path = tmp_path / "bad.wav"
    path.write_bytes(encode(sound, format="WAV", subtype="FLOAT"))
    with pytest.raises(NonFiniteAudioError, match=r"bad\.wav: a sample of .* at 0\.50 s"):
        read_audio(path)
    with pytest.raises(NonFiniteAudioError, match="<array>"):
        read_audio((sound.astype(np.float64), RATE))


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [("int8", -128, 127), ("int16", -(2**15), 2**15 - 1), ("int32", -(2**31), 2**31 - 1)],
)
def test_integers_are_scaled_by_their_range(dtype, low, high):
    sound = read_audio((np.array([low, 0, high], dtype), RATE))
    np.testing.assert_allclose(sound, [-1.0, 0.0, high / -low], atol=1e-7)


def test_unsigned_bytes_are_centred_as_in_wav_files():
    sound = read_audio((np.array([0, 128, 255], np.uint8), RATE))
    np.testing.assert_allclose(sound, [-1.0, 0.0, 127 / 128], atol=1e-7)


def test_arrays_may_be_a_dict_and_channels_on_either_axis():
    sound = tone(0.2, channels=2)
    expected = read_audio((sound, RATE))
    np.testing.assert_allclose(expected, sound[:, 0], atol=1e-7)
    np.testing.assert_array_equal(read_audio((sound.T, RATE)), expected)
    np.testing.assert_array_equal(
        read_audio({"array": sound[:, 0].astype(np.float64), "sampling_rate": np.int64(RATE)}),
        expected,
    )
    assert read_audio((np.zeros((1, 1)), RATE)).shape == (1,)
    assert read_audio(([0.0, 0.5], RATE)).tolist() == [0.0, 0.5]
    assert read_audio((np.zeros(0), 44_100)).shape == (0,)
    assert read_audio((np.zeros((0, 2)), 44_100)).shape == (0,)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros(8), "with its rate"),
        (None, "with its rate"),
        ({"array": np.zeros(8)}, "with its rate"),
        ((RATE, np.zeros(8)), "whole number"),
        ((np.zeros(8), 44_100.5), "whole number"),
        ((np.zeros(8), float("nan")), "whole number"),
        ((np.zeros((100, 200)), RATE), "which axis is channels"),
        ((np.zeros((2, 2)), RATE), "which axis is channels"),
        ((np.zeros((2, 3, 4)), RATE), "which axis is channels"),
        ((np.zeros(8, np.int64), RATE), "int64"),
        ((np.zeros(8, bool), RATE), "bool"),
        ((["a"], RATE), "samples of type"),
        (([[1.0], [1.0, 2.0]], RATE), "not numbers"),
    ],
)
def test_arrays_that_are_not_clearly_sound_are_refused(source, reason):
    with pytest.raises(AudioFormatError, match=reason):
        read_audio(source)


# --- the rest -------------------------------------------------------------------------------------


def test_importing_the_reader_loads_no_heavy_library():
    program = (
        "import sys, speech_ed_flax.audio.files, speech_ed_flax.audio.features;"
        "print(sorted({'jax', 'jaxlib', 'transformers', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_real_speech_is_read_whole():
    paths = [*sorted(SPEECH.glob("kathleen/flac/*.flac"))[:3]]
    paths += sorted(SPEECH.glob("an4/train/*.flac"))[:3]
    if not paths:
        pytest.skip("no speech beside the repository in ../shared/data")
    for path in paths:
        sound = read_audio(path)
        assert len(sound) == soundfile.info(path).frames
        assert 0.001 < np.abs(sound).mean() < 0.5
