"""Settings of decoders that leave something open are refused, by name."""

import pytest
from contracts.models import DECODERS
from families import SHALLOW, joint, vary

from speech_ed_flax import ConfigError
from speech_ed_flax.model import build

REFUSED = [
    ("trocr", {"pad_token_id": None}, "pad_token_id is not set"),
    ("speech_to_text_2", {"pad_token_id": None}, "pad_token_id is not set"),
    ("roberta", {"pad_token_id": None}, "pad_token_id is not set"),
    ("xlm-roberta-xl", {"position_embedding_type": "relative_key"}, "'relative_key' is not"),
    ("bert", {"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
    ("big_bird", {"use_bias": False}, "use_bias=False is not supported"),
    ("electra", {"hidden_act": "mish"}, "hidden_act='mish' is not supported"),
    ("xmod", {"default_language": None}, "default_language=None has no adapters: .* en_XX"),
    ("xmod", {"default_language": "de_DE"}, "default_language='de_DE' has no adapters"),
    ("trocr", {"cross_attention_hidden_size": 20}, "=20 is not the encoder's width of 24"),
    ("roberta", {"cross_attention_hidden_size": 20}, "=20 is not supported by 'roberta'"),
]


@pytest.mark.parametrize(("decoder", "changes", "reason"), REFUSED)
def test_what_is_left_open_is_refused_by_name(decoder, changes, reason):
    with pytest.raises(ConfigError, match=reason):
        build(joint(SHALLOW, vary(DECODERS[decoder], **changes)))
