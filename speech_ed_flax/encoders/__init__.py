"""Speech encoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.encoders import data2vec_audio, wav2vec2, whisper
from speech_ed_flax.family import Family

ENCODERS: dict[str, Family] = {
    "wav2vec2": wav2vec2.WAV2VEC2,
    "hubert": wav2vec2.HUBERT,
    "data2vec-audio": data2vec_audio.DATA2VEC_AUDIO,
    "unispeech": wav2vec2.UNISPEECH,
    "unispeech-sat": wav2vec2.UNISPEECH_SAT,
    "whisper": whisper.WHISPER,
}
