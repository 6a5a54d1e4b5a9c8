"""Every language model of transformers listens here, or is refused for not listening."""

from types import SimpleNamespace

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from speech_ed_flax.decoders import DECODERS
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.model import WRITERS_OF_AUDIO, family_of

LISTENING = {
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp"),
    *("pegasus", "plbart", "trocr", "whisper", "xglm"),
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie"),
    *("megatron-bert", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer"),
    *("xlm-roberta", "xlm-roberta-xl", "xmod"),
    *("gpt-sw3", "gpt2", "gpt_bigcode", "prophetnet"),
}
"""Types of transformers 5.23 whose decoder has cross-attention to an encoder, and writes text."""

DEAF = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - LISTENING - {*WRITERS_OF_AUDIO})


def test_every_decoder_that_listens_is_a_family():
    assert DECODERS.keys() >= LISTENING
    assert len(DEAF) > 100


def test_every_other_is_refused_as_deaf():
    for kind in DEAF:
        with pytest.raises(ConfigError, match=f"'{kind}' is not supported: .* deaf to the encoder"):
            family_of("decoder", SimpleNamespace(model_type=kind))


@pytest.mark.parametrize("kind", [*WRITERS_OF_AUDIO, "t5", "m2m_100", "wav2vec2"])
def test_no_other_model_is_called_deaf(kind):
    with pytest.raises(ConfigError, match=f"'{kind}' is not supported: use one of bart, "):
        family_of("decoder", SimpleNamespace(model_type=kind))
