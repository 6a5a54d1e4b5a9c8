"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, gpt2, roberta, trocr
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "bigbird_pegasus": bart.BIGBIRD_PEGASUS,
    "blenderbot": bart.BART,
    "blenderbot-small": bart.BART,
    "camembert": roberta.ROBERTA,
    "data2vec-text": roberta.DATA2VEC_TEXT,
    "gpt2": gpt2.GPT2_FAMILY,
    "marian": bart.BART,
    "mbart": bart.BART,
    "mvp": bart.BART,
    "pegasus": bart.BART,
    "plbart": bart.BART,
    "roberta": roberta.ROBERTA,
    "roberta-prelayernorm": roberta.ROBERTA_PRELAYERNORM,
    "speech_to_text_2": trocr.SPEECH_TO_TEXT_2,
    "trocr": trocr.TROCR,
    "whisper": bart.WHISPER,
    "xglm": bart.XGLM,
    "xlm-roberta": roberta.ROBERTA,
    "xlm-roberta-xl": roberta.XLM_ROBERTA_XL,
}
