"""Text decoders, by the ``model_type`` of their configuration."""

from speech_ed_flax.decoders import bart, bert, electra, ernie, gpt2, rembert
from speech_ed_flax.family import Family

DECODERS: dict[str, Family] = {
    "bart": bart.BART,
    "bert": bert.BERT,
    "bert-generation": bert.BERT_GENERATION,
    "electra": electra.ELECTRA,
    "ernie": ernie.ERNIE,
    "gpt2": gpt2.GPT2_FAMILY,
    "mbart": bart.MBART,
    "megatron-bert": bert.MEGATRON_BERT,
    "rembert": rembert.REMBERT,
    "whisper": bart.WHISPER,
}
