"""Damaged, cut, lying and endless files: each gives its sound or an error that names it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutations import MOST_MEGABYTES, hear_all, originals, table
from sounds import CODECS, CONTAINERS, encode, speech_like

from speech_ed_flax.audio.errors import (
    AudioCorruptError,
    AudioFormatError,
    AudioTruncatedError,
    NonFiniteAudioError,
)
from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.audio.files import read_audio
from speech_ed_flax.errors import AudioError
from speech_ed_flax.transcription import Job, Listening
from speech_ed_flax.transcription.listening import End

# More of each format with, for example, MUTATIONS=2000 HOURS=24 pytest -s, and this file.
MUTATIONS, HOURS = (int(os.environ.get(n, d)) for n, d in (("MUTATIONS", 15), ("HOURS", 1)))
RATE, TESTS = 16_000, Path(__file__).parents[1]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return originals()


# --- mutations ------------------------------------------------------------------------------------


@pytest.mark.timeout(60 + MUTATIONS)
def test_no_mutation_crashes_hangs_swells_or_escapes(files):
    found = list(hear_all(files, range(MUTATIONS)))
    print(table(found))
    assert len(found) == MUTATIONS * len(files)
    assert [one for one in found if one.fault] == []


# --- files that end early -------------------------------------------------------------------------

FRAGMENTS = "fragments of mp4"
TELLING = [*CONTAINERS, "mp4", "webm", "matroska", "avi", FRAGMENTS]
"""Formats whose header says how much follows; those of ``CODECS`` are in ``test_audio_files``."""


def whole(name: str, files: dict[str, bytes]) -> bytes:
    if name in CONTAINERS:
        return files[name]
    films = pytest.importorskip("films", reason="PyAV is not installed")
    if name == FRAGMENTS:
        return films.encode("mp4", movflags="empty_moov", frag_duration="500000")
    return files[name]


@pytest.mark.parametrize("name", TELLING)
@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_file_cut_in_its_sound_is_refused(name, part, files, tmp_path):
    content, path = whole(name, files), tmp_path / "cut.bin"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(AudioTruncatedError, match=r"cut\.bin: the header says \d+ \w+, \d+ found"):
        read_audio(path)


@pytest.mark.parametrize(
    "name", [n for n in TELLING if n not in ("mp4", "caf")]
)  # index at the end
def test_allow_truncated_keeps_the_beginning_of_any_container(name, files, caplog):
    content = whole(name, files)
    expected = read_audio(content)
    sound = read_audio(content[: int(len(content) * 0.7)], allow_truncated=True)
    assert 0.5 * len(expected) < len(sound) < 0.75 * len(expected)
    settled = len(sound) - 4_000  # the resampler ends differently
    np.testing.assert_allclose(sound[:settled], expected[:settled], atol=1e-4)
    assert "<bytes>: the header says" in caplog.text


# libsndfile takes what follows for more sound in W64, NIST and VOC.
@pytest.mark.parametrize("name", [n for n in TELLING if n not in ("w64", "nist", "voc")])
def test_what_follows_the_sound_is_not_missed(name, files):
    content = whole(name, files)
    for garbage in (b"TAG" + b"garbage " * 999, bytes(999), b"\xff" * 999):
        np.testing.assert_array_equal(read_audio(content + garbage), read_audio(content))


@pytest.mark.parametrize(
    ("name", "at", "sizes"),
    [
        ("aiff", 4, [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff"]),
        ("au", 8, [b"\xff\xff\xff\xff"]),
    ],
)
def test_a_file_written_to_a_pipe_is_good(name, at, sizes, files):
    for size in sizes:
        content = files[name][:at] + size + files[name][at + 4 :]
        np.testing.assert_array_equal(read_audio(content), read_audio(files[name]))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("webm", {"live": "1"}),
        ("matroska", {"live": "1"}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_live_recording_is_good(kind, options):
    films = pytest.importorskip("films", reason="PyAV is not installed")
    np.testing.assert_array_equal(
        read_audio(films.encode(kind, **options)), read_audio(films.encode(kind))
    )


# --- sound that decoders would lose in silence ----------------------------------------------------


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_no_damage_of_an_ogg_file_loses_sound(name, files):
    content, expected = files[name], read_audio(files[name])
    for at in range(0, len(content), 97):
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        with pytest.raises(AudioError):
            read_audio(flipped)
    last = content.rindex(b"OggS")
    before = content.rindex(b"OggS", 0, last)
    with pytest.raises(AudioCorruptError, match=r"damaged [01]\.\d\d s from its start, a page"):
        read_audio(content[:before] + content[last:])
    np.testing.assert_array_equal(read_audio(content + b"garbage and OggS"), expected)


@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_joined_ogg_files_are_refused_because_only_the_first_would_be_heard(name, files):
    another = encode(np.zeros((RATE, 1)), **CODECS[name])
    for second in (files[name], another):
        with pytest.raises(AudioFormatError, match="joined end to end"):
            read_audio(files[name] + second)


def test_an_mp3_file_cut_in_its_first_frame_is_said_to_have_none(files):
    for size in (20, 44, 100):
        with pytest.raises(AudioCorruptError, match="its frames cannot be found"):
            read_audio(files["mp3"][:size])


def test_an_mp3_file_whose_tag_is_damaged_is_read_to_its_end(files):
    mp3, expected = files["mp3"], read_audio(files["mp3"])
    tag = mp3.index(b"Info") if b"Info" in mp3[:200] else mp3.index(b"Xing")
    sound = read_audio(mp3[: tag + 8] + bytes(4) + mp3[tag + 12 :])
    assert len(expected) <= len(sound) <= len(expected) + 3 * 1_152


def test_a_container_with_a_hole_is_heard_with_a_warning(files, caplog):
    if "webm" not in files:
        pytest.skip("PyAV is not installed")
    content, middle = files["webm"], len(files["webm"]) // 2
    sound = read_audio(content[:middle] + bytes(2_000) + content[middle + 2_000 :])
    assert len(sound) < 1.5 * RATE
    assert re.search(r"<bytes>: [01]\.\d+ s of sound found, its header says 2\.\d+ s", caplog.text)
    caplog.clear()
    read_audio(content)
    assert not caplog.text


# --- contents that are not speech -----------------------------------------------------------------


SHORT = [(name, frames) for name in CODECS | CONTAINERS for frames in (0, 1, 399)]
# libsndfile writes no file of 0 frames in some formats, and fills a block in another.
UNWRITTEN = [("flac", 0), ("opus", 0), ("mp3", 0), ("adpcm", 1), ("adpcm", 399)]


@pytest.mark.parametrize(("name", "frames"), [s for s in SHORT if s not in UNWRITTEN])
def test_next_to_no_sound_is_read_and_never_recognised(name, frames, tmp_path):
    path = tmp_path / f"short.{name}"
    sound = np.full((frames, 1), 0.5, np.float32)
    path.write_bytes(encode(sound, **(CODECS | CONTAINERS)[name]))
    (end,) = Listening(WaveformFeatures()).listen(Job(path, str(path)))
    assert isinstance(end, End)
    assert (end.error, end.duration < 0.1) == (None, True)


@pytest.mark.parametrize("form", ["AIFF", "AU", "CAF", "W64"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_numbers_that_are_none_are_refused_in_every_format(form, bad):
    sound = speech_like(0.5, RATE)[:, None].astype(np.float64)
    sound[4_000] = bad
    with pytest.raises(NonFiniteAudioError, match=r"0\.25 s"):
        read_audio(encode(sound, format=form, subtype="DOUBLE"))


def test_a_clipped_square_wave_is_no_speech():
    wave = np.sign(np.sin(2 * np.pi * 100 * np.arange(10 * RATE) / RATE)).astype(np.float32)
    assert list(Listening(WaveformFeatures()).listen(Job((wave, RATE), "square"))) == [End(10.0)]


# --- much from little -----------------------------------------------------------------------------

HEAR = """
import sys
from mutations import peak_megabytes
from speech_ed_flax.audio.features import WaveformFeatures
from speech_ed_flax.transcription import Job, Listening
(end,) = Listening(WaveformFeatures()).listen(Job(sys.argv[1], sys.argv[1]))
print(end.duration, peak_megabytes(), end.error)
"""


def hear_apart(path: Path) -> tuple[float, float, str]:
    """Returns the seconds of a silent file, the memory that hearing it takes, and the error."""
    command = [sys.executable, "-c", HEAR, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TESTS)
    seconds, megabytes, error = done.stdout.split(maxsplit=2)
    return float(seconds), float(megabytes), error.strip()


@pytest.mark.timeout(60 + 30 * HOURS)
def test_hours_of_silence_are_heard_in_little_memory(tmp_path):
    path = tmp_path / "night.wav"
    content = encode(np.zeros((1, 1)), **CODECS["wav"])
    path.write_bytes(content.replace(b"data\2\0\0\0", b"data\xff\xff\xff\xff"))
    os.truncate(path, 44 + 2 * HOURS * 3_600 * RATE)  # takes no room on the disk
    seconds, megabytes, error = hear_apart(path)
    assert (seconds, error) == (HOURS * 3_600, "None")
    assert megabytes < MOST_MEGABYTES


@pytest.mark.timeout(60 + 30 * HOURS)
def test_a_bomb_is_heard_in_little_memory(tmp_path):
    path = tmp_path / "bomb.flac"
    silence = np.zeros((RATE * 60, 8), np.int16)
    with soundfile.SoundFile(path, "w", RATE, 8, format="FLAC", subtype="PCM_24") as bomb:
        for _ in range(10 * HOURS):
            bomb.write(silence)
    assert path.stat().st_size < HOURS * 1e6
    seconds, megabytes, error = hear_apart(path)
    assert (seconds, error) == (HOURS * 600, "None")
    assert megabytes < MOST_MEGABYTES


def test_a_huge_file_of_nothing_is_refused_at_once(tmp_path):
    path = tmp_path / "huge.wav"
    with path.open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(AudioError, match="nothing but zero bytes"):
        read_audio(path)


def test_a_disk_that_fails_is_an_error_that_names_the_file():
    path = Path("/proc/self/mem")  # regular by its mode, but nothing is at its beginning
    if not path.exists():
        pytest.skip("only Linux has a file that always fails")
    with pytest.raises(AudioError, match=r"/proc/self/mem: cannot be read, Input/output error"):
        read_audio(path)
