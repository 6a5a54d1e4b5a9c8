"""Speech encoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.encoders import (
    moonshine,
    speech_to_text,
    speecht5,
    wav2vec2,
    wav2vec2_conformer,
    whisper,
)
from speech_ed_flax.family import Family

ENCODERS: dict[str, Family] = {
    "hubert": wav2vec2.HUBERT,
    "moonshine": moonshine.MOONSHINE,
    "speech_to_text": speech_to_text.SPEECH_TO_TEXT,
    "speecht5": speecht5.SPEECHT5,
    "wav2vec2": wav2vec2.WAV2VEC2,
    "wav2vec2-conformer": wav2vec2_conformer.WAV2VEC2_CONFORMER,
    "whisper": whisper.WHISPER,
}
