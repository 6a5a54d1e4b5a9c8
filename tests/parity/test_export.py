"""What is saved is, to the bit, what PyTorch wrote, and PyTorch takes it with ``strict=True``."""

from copy import deepcopy

import pytest
from families import PAIRS
from pytorch import tensor, torch

from speech_ed_flax.conversion.safetensors import read_safetensors


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_pytorch_strictly_loads_a_saved_model_and_no_bit_has_changed(
    pair, encoder, decoder, tmp_path
):
    pair = pair(encoder, decoder)
    pair.ours.save_pretrained(tmp_path)
    saved = {
        n: tensor(array) for n, array in read_safetensors(tmp_path / "model.safetensors").items()
    }
    written = pair.theirs.state_dict()
    shared = {values.data_ptr(): name for name, values in written.items() if name in saved}
    tied = {n: saved[shared[v.data_ptr()]] for n, v in written.items() if n not in saved}
    other = deepcopy(pair.theirs)
    with torch.no_grad():
        for values in other.state_dict().values():
            values.zero_()
    other.load_state_dict(saved | tied, strict=True)
    for name, values in other.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(values, written[name]), name
