"""Speech encoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.encoders import (
    data2vec_audio,
    moonshine,
    parakeet,
    seamless_m4t_v2,
    sew,
    sew_d,
    speech_to_text,
    speecht5,
    wav2vec2,
    wav2vec2_bert,
    wav2vec2_conformer,
    wavlm,
    whisper,
)
from speech_ed_flax.family import Family

ENCODERS: dict[str, Family] = {
    "data2vec-audio": data2vec_audio.DATA2VEC_AUDIO,
    "hubert": wav2vec2.HUBERT,
    "moonshine": moonshine.MOONSHINE,
    "parakeet_encoder": parakeet.PARAKEET,
    "seamless_m4t_v2": seamless_m4t_v2.SEAMLESS_M4T_V2,
    "sew": sew.SEW,
    "sew-d": sew_d.SEW_D,
    "speech_to_text": speech_to_text.SPEECH_TO_TEXT,
    "speecht5": speecht5.SPEECHT5,
    "unispeech": wav2vec2.UNISPEECH,
    "unispeech-sat": wav2vec2.UNISPEECH_SAT,
    "wav2vec2": wav2vec2.WAV2VEC2,
    "wav2vec2-bert": wav2vec2_bert.WAV2VEC2_BERT,
    "wav2vec2-conformer": wav2vec2_conformer.WAV2VEC2_CONFORMER,
    "wavlm": wavlm.WAVLM,
    "whisper": whisper.WHISPER,
}
