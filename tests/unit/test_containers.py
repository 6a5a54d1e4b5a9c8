"""Sound in the containers that FFmpeg reads: M4A, MP4 with a picture, WebM, AAC."""

import io
import sys
from fractions import Fraction

import numpy as np
import pytest
from sounds import speech_like

from speech_ed_flax.audio.errors import AudioCorruptError, AudioFormatError, AudioLimitError
from speech_ed_flax.audio.files import read_audio

av = pytest.importorskip("av", reason="PyAV is not installed")

RATE = 48_000
CODECS = {"mp4": "aac", "webm": "libopus", "adts": "aac", "matroska": "pcm_s16le", "avi": "mp3"}


def add_picture(container) -> None:
    """Adds a video of one black picture."""
    picture = container.add_stream("mpeg4", rate=5)
    picture.width = picture.height = 32
    picture.pix_fmt = "yuv420p"
    image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    image.pts, image.time_base = 0, Fraction(1, 5)
    container.mux(picture.encode(image))
    container.mux(picture.encode())


def encode(kind: str, seconds: float = 2.0, with_picture: bool = False) -> bytes:
    """Returns a file of 48 kHz stereo sound."""
    sound = np.stack([speech_like(seconds, RATE)] * 2, axis=1)
    pcm = np.ascontiguousarray((sound * 32767).astype(np.int16).reshape(1, -1))
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as container:
        stream = container.add_stream(CODECS[kind], rate=RATE, layout="stereo")
        if with_picture:
            add_picture(container)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(stream.format, stream.layout, RATE, stream.frame_size or None)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize("kind", CODECS)
def test_the_sound_of_a_container_is_what_went_in(kind):
    heard = read_audio(encode(kind))
    expected = read_audio((speech_like(2.0, RATE), RATE))
    assert abs(len(heard) - len(expected)) < 0.1 * 16_000
    level, wanted = (np.sqrt(np.square(sound).mean()) for sound in (heard, expected))
    assert level == pytest.approx(wanted, rel=0.1)


def test_the_picture_of_a_video_is_passed_over(tmp_path):
    path = tmp_path / "talk.mp4"
    path.write_bytes(encode("mp4", with_picture=True))
    assert len(read_audio(path)) == pytest.approx(2 * 16_000, abs=2_000)


def test_a_video_without_sound_is_refused():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        add_picture(container)
    with pytest.raises(AudioFormatError, match="MP4 or M4A without sound"):
        read_audio(file.getvalue())


def test_what_is_longer_than_the_limit_is_refused():
    with pytest.raises(AudioLimitError):
        read_audio(encode("mp4"), max_seconds=1)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_damaged_container_is_an_error_that_names_it(kind, tmp_path):
    path = tmp_path / "damaged.bin"
    path.write_bytes(encode(kind)[:200])
    with pytest.raises((AudioCorruptError, AudioFormatError), match=r"damaged\.bin"):
        read_audio(path)


def test_without_pyav_the_message_says_how_to_install_it(monkeypatch):
    content = encode("mp4", 0.1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioFormatError, match=r"speech_ed_flax\[ffmpeg\]"):
        read_audio(content)
