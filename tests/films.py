"""Files of the containers that FFmpeg reads; it needs PyAV."""

import io
from fractions import Fraction

import av
import numpy as np
from sounds import speech_like

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


def encode(
    kind: str,
    seconds: float = 2.0,
    with_picture: bool = False,
    rate: int = RATE,
    layout: str = "stereo",
    tags: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """Returns a file of sound."""
    sound = np.stack([speech_like(seconds, rate)] * 2, axis=1)
    pcm = np.ascontiguousarray((sound * 32767).astype(np.int16).reshape(1, -1))
    file = io.BytesIO()
    with av.open(file, "w", format=kind, options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(CODECS[kind], rate=rate, layout=layout)
        if with_picture:
            add_picture(container)
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo")
        frame.sample_rate = rate
        size = stream.frame_size or 1_024
        resampler = av.AudioResampler(stream.format, stream.layout, rate, size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode())
    return file.getvalue()
