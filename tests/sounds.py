"""Sounds for tests of what is extracted from them."""

import io
from pathlib import Path

import numpy as np
import soundfile

CODECS = {
    "wav": {"format": "WAV", "subtype": "PCM_16"},
    "flac": {"format": "FLAC"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3"},
}
CONTAINERS = {
    "rf64": {"format": "RF64", "subtype": "PCM_24"},
    "rifx": {"format": "WAV", "subtype": "FLOAT", "endian": "BIG"},
    "wavex": {"format": "WAVEX", "subtype": "PCM_16"},
    "adpcm": {"format": "WAV", "subtype": "IMA_ADPCM"},
    "aiff": {"format": "AIFF", "subtype": "PCM_16"},
    "au": {"format": "AU", "subtype": "ULAW"},
    "caf": {"format": "CAF", "subtype": "ALAC_16"},
    "w64": {"format": "W64", "subtype": "PCM_16"},
    "nist": {"format": "NIST", "subtype": "PCM_16"},
    "voc": {"format": "VOC", "subtype": "PCM_16"},
}
"""What libsndfile is told to write: the formats of most recordings, and those of a few."""


def clips() -> list[np.ndarray]:
    """Noise, a sweep with an offset, a click in silence, and a whisper, of different lengths."""
    random = np.random.default_rng(0)
    sweep = 0.4 * np.sin(np.linspace(0, 90, 30_001) ** 2) + 0.1
    click = np.zeros(24_000)
    click[7_000] = 1.0
    noise, whisper = 0.2 * random.standard_normal(50_000), 1e-4 * random.standard_normal(8_000)
    return [sound.astype(np.float32) for sound in (noise, sweep, click, whisper)]


def speech_like(seconds: float, rate: int) -> np.ndarray:
    """Returns noise with the rhythm of speech: four syllables a second, a pause of 0.5 s in 3 s."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).standard_normal(len(time))
    syllables = 0.02 + np.sin(4 * np.pi * time) ** 2
    return (0.1 * noise * np.where(time % 3 < 2.5, syllables, 1e-4)).astype(np.float32)


def record(path: Path, seconds: float = 0.5, rate: int = 16_000, channels: int = 1) -> Path:
    """Writes what sounds like speech; the format is that of the path's extension."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.stack([speech_like(seconds, rate)] * channels, axis=1), rate)
    return path


def encode(sound: np.ndarray, rate: int = 16_000, **format_: str) -> bytes:
    """Returns a file of sound ``[frames, channels]``.

    It is written in small blocks: one long OGG write crashes libsndfile 1.2.2.
    """
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, sound.shape[1], **format_) as writer:
        for start in range(0, len(sound), 16_384):
            writer.write(sound[start : start + 16_384])
    return file.getvalue()
