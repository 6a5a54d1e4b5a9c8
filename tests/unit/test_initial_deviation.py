"""How far apart the random weights of a new model are."""

import numpy as np
import pytest

from speech_ed_flax.creation import create
from speech_ed_flax.data.tokenizer import train_tokenizer

ENCODER = {
    "model_type": "wav2vec2",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [16],
    "conv_kernel": [8],
    "conv_stride": [4],
    "num_feat_extract_layers": 1,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
}
DECODER = {
    "model_type": "bart",
    "d_model": 48,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
}


@pytest.mark.parametrize(("encoder", "decoder"), [(0.02, 0.02), (0.05, 0.1)])
def test_random_weights_have_the_deviation_that_the_config_of_their_half_asks_for(encoder, decoder):
    model = create(
        ENCODER | {"initializer_range": encoder},
        DECODER | {"init_std": decoder},
        train_tokenizer(["A B C D"], "word"),
    )
    layer = model.params["encoder"]["transformer"]["layers_0"]
    assert np.std(layer["self_attention"]["query"]["weight"]) == pytest.approx(encoder, rel=0.1)
    layer = model.params["decoder"]["transformer"]["layers_0"]
    assert np.std(layer["cross_attention"]["key"]["weight"]) == pytest.approx(decoder, rel=0.1)
    assert np.std(model.params["projection"]["weight"]) == pytest.approx(decoder, rel=0.1)
    assert np.all(layer["feed_forward_norm"]["scale"] == 1)
