"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, gpt2, prophetnet
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "gpt-sw3": gpt2.GPT2_FAMILY,
    "gpt2": gpt2.GPT2_FAMILY,
    "gpt_bigcode": gpt2.GPT_BIGCODE,
    "mbart": bart.MBART,
    "prophetnet": prophetnet.PROPHETNET,
    "whisper": bart.WHISPER,
}
