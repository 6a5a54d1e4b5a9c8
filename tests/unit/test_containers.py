"""Sound in the containers that FFmpeg reads: M4A, MP4 with a picture, WebM, AAC."""

import io
import sys

import numpy as np
import pytest
from sounds import speech_like

from speech_ed_flax.audio.errors import AudioFormatError, AudioLimitError
from speech_ed_flax.audio.files import read_audio

av = pytest.importorskip("av", reason="PyAV is not installed")

from films import CODECS, RATE, add_picture, encode  # noqa: E402


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


def test_tags_may_be_in_any_encoding():
    content = encode("mp4", tags={"title": "Koeln"}).replace(b"Koeln", b"K\xf6ln ")
    assert len(read_audio(content)) > 0


@pytest.mark.parametrize("other", [{"rate": RATE // 2}, {"layout": "mono"}])
def test_sound_that_changes_its_rate_or_channels_is_refused(other):
    with pytest.raises(AudioFormatError, match=r"rate or channels change 2\.\d\d s from its start"):
        read_audio(encode("adts") + encode("adts", **other))


def test_without_pyav_the_message_says_how_to_install_it(monkeypatch):
    content = encode("mp4", 0.1)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(AudioFormatError, match=r"speech_ed_flax\[ffmpeg\]"):
        read_audio(content)
