"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, gpt2, trocr
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "gpt2": gpt2.GPT2_FAMILY,
    "mbart": bart.MBART,
    "speech_to_text_2": trocr.SPEECH_TO_TEXT_2,
    "trocr": trocr.TROCR,
    "whisper": bart.WHISPER,
}
