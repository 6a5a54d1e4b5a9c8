"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, gpt2
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "bigbird_pegasus": bart.BIGBIRD_PEGASUS,
    "blenderbot": bart.BART,
    "blenderbot-small": bart.BART,
    "gpt2": gpt2.GPT2_FAMILY,
    "marian": bart.BART,
    "mbart": bart.BART,
    "mvp": bart.BART,
    "pegasus": bart.BART,
    "plbart": bart.BART,
    "whisper": bart.WHISPER,
    "xglm": bart.XGLM,
}
