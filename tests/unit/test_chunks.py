"""Frames attend to the chunks that they attend to in PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest

from speech_ed_flax.layers.frame_conformer import Chunks

torch = pytest.importorskip("torch")
seamless = pytest.importorskip("transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2")


@pytest.mark.parametrize(("size", "before"), [(4, 1), (3, 0), (5, -1), (2, 3), (11, 0)])
def test_a_frame_attends_to_its_own_chunk_and_those_before(size, before):
    config = SimpleNamespace(speech_encoder_chunk_size=size, speech_encoder_left_chunk_num=before)
    upstream = SimpleNamespace(config=config)
    states = torch.zeros(1, 11, 2)
    expected = seamless.SeamlessM4Tv2ConformerEncoder._apply_chunk_attention(upstream, None, states)
    found = Chunks(size, before + 1 if before >= 0 else None).mask(11)
    found = np.ones((1, 1, 11, 11), bool) if found is None else found
    np.testing.assert_array_equal(found, expected.numpy())
