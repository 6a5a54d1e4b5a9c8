"""Speech encoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.encoders import wav2vec2, wav2vec2_conformer, whisper
from speech_ed_flax.family import Family

ENCODERS: dict[str, Family] = {
    "wav2vec2": wav2vec2.WAV2VEC2,
    "hubert": wav2vec2.HUBERT,
    "wav2vec2-conformer": wav2vec2_conformer.WAV2VEC2_CONFORMER,
    "whisper": whisper.WHISPER,
}
