"""Speech encoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.encoders import data2vec_audio, sew, sew_d, wav2vec2, wavlm, whisper
from speech_ed_flax.family import Family

ENCODERS: dict[str, Family] = {
    "wav2vec2": wav2vec2.WAV2VEC2,
    "hubert": wav2vec2.HUBERT,
    "data2vec-audio": data2vec_audio.DATA2VEC_AUDIO,
    "sew": sew.SEW,
    "sew-d": sew_d.SEW_D,
    "unispeech": wav2vec2.UNISPEECH,
    "unispeech-sat": wav2vec2.UNISPEECH_SAT,
    "wavlm": wavlm.WAVLM,
    "whisper": whisper.WHISPER,
}
