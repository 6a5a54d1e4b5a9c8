"""Checkpoints of FlaxSpeechEncoderDecoderModel of transformers 4.57.6: read, and written alike.

``tests/data/make_legacy_flax.py`` made them with that version, and says what is in them.
"""

from pathlib import Path

import numpy as np
import pytest
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.conversion.save import save_weights

FOLDER = Path(__file__).parents[1] / "data" / "legacy_flax"
PROJECTED = {
    "bart_same_width": False,
    "bert_projected": True,
    "gpt2_adapter_projected": True,  # between equal widths, as only Flax did
}


@pytest.fixture(params=PROJECTED)
def folder(request):
    return FOLDER / request.param


def tree_of(folder):
    return flatten_dict(msgpack_restore((folder / "flax_model.msgpack").read_bytes()), sep="/")


def test_every_fixture_is_tested():
    assert {path.name for path in FOLDER.iterdir()} == PROJECTED.keys()


def test_a_legacy_checkpoint_gives_the_logits_it_gave(folder):
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    assert model.module.project == PROJECTED[folder.name]
    with np.load(folder / "expected.npz") as expected:
        found = model(expected["inputs"], expected["mask"], expected["tokens"])
        np.testing.assert_allclose(found.logits, expected["logits"], rtol=0, atol=1e-4)
        assert np.abs(expected["logits"]).max() > 1, "the fixture shows nothing"


def test_a_legacy_checkpoint_is_written_back_leaf_by_leaf(folder, tmp_path):
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype=None)
    save_weights(tmp_path, model.module, model.params, model.config, layout="flax")
    expected, found = tree_of(folder), tree_of(tmp_path)
    if not model.module.encoder.config.mask_embedding:
        # Flax made this vector for SpecAugment even where the config switches that off.
        del expected["encoder/masked_spec_embed"]
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        assert found[path].dtype == leaf.dtype, path
        assert np.array_equal(found[path], leaf), path


def test_a_legacy_checkpoint_becomes_one_that_loads_the_same(folder, tmp_path):
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype=None)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()
    again = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path, dtype=None)
    leaves, expected = flatten_dict(again.params, sep="/"), flatten_dict(model.params, sep="/")
    assert leaves.keys() == expected.keys()
    assert all(np.array_equal(leaves[path], expected[path]) for path in expected)
