"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, electra, ernie, gpt2, rembert, roberta, trocr
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "bert-generation": bert.BERT_GENERATION,
    "bigbird_pegasus": bart.BIGBIRD_PEGASUS,
    "blenderbot": bart.BART,
    "blenderbot-small": bart.BART,
    "camembert": roberta.ROBERTA,
    "data2vec-text": roberta.DATA2VEC_TEXT,
    "electra": electra.ELECTRA,
    "ernie": ernie.ERNIE,
    "gpt-sw3": gpt2.GPT2_FAMILY,
    "gpt2": gpt2.GPT2_FAMILY,
    "gpt_bigcode": gpt2.GPT_BIGCODE,
    "marian": bart.BART,
    "mbart": bart.BART,
    "megatron-bert": bert.MEGATRON_BERT,
    "mvp": bart.BART,
    "pegasus": bart.BART,
    "plbart": bart.BART,
    "rembert": rembert.REMBERT,
    "roberta": roberta.ROBERTA,
    "roberta-prelayernorm": roberta.ROBERTA_PRELAYERNORM,
    "speech_to_text_2": trocr.SPEECH_TO_TEXT_2,
    "trocr": trocr.TROCR,
    "whisper": bart.WHISPER,
    "xglm": bart.XGLM,
    "xlm-roberta": roberta.ROBERTA,
    "xlm-roberta-xl": roberta.XLM_ROBERTA_XL,
}
