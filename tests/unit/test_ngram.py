"""Buckets of distances, and settings of ProphetNet that mean nothing."""

import pytest
from families import DECODERS, SHALLOW, joint, vary

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.layers.ngram import bucket_of_each
from speech_ed_flax.model import build


def test_short_distances_have_a_bucket_each_and_long_ones_share():
    assert bucket_of_each(12, 8, 9).tolist() == [0, 1, 2, 3, 4, 5, 6, 6, 7, 7, 7, 7]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_buckets": 1}, "num_buckets=1 is not supported: there must be 2 at least"),
        (
            {"num_buckets": 8, "relative_max_distance": 4},
            "fewer than twice relative_max_distance=4",
        ),
        ({"pad_token_id": None}, "pad_token_id is not set: positions are counted from it"),
        ({"ngram": 0}, "ngram=0 is not within 1 to"),
        ({"activation_function": "mish"}, "activation_function='mish' is not supported"),
    ],
)
def test_settings_of_prophetnet_that_mean_nothing_are_refused_by_name(fields, message):
    config = joint(SHALLOW, DECODERS["prophetnet"])
    config.decoder = vary(config.decoder, **fields)
    with pytest.raises(ConfigError, match=message):
        build(config)
