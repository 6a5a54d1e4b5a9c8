"""A training is planned from its configuration alone, for devices that are not there."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SPEECH = Path(__file__).parents[1] / "data" / "speech.flac"

CONFIG = """
model:
  encoder:
    model_type: wav2vec2
    hidden_size: 24
    num_hidden_layers: 1
    num_attention_heads: 4
    intermediate_size: 32
    conv_dim: [8]
    conv_kernel: [400]
    conv_stride: [320]
    num_conv_pos_embeddings: 8
    num_conv_pos_embedding_groups: 2
  decoder:
    model_type: bart
    d_model: 24
    decoder_layers: 1
    decoder_attention_heads: 4
    decoder_ffn_dim: 32
    max_position_embeddings: 32
  tokenizer: {kind: char}
train: [heard.tsv]
evaluate: {dev: heard.tsv}
data: {batch_seconds: 14}
optimizer: {steps: 10}
evaluation: {generation: {max_length: 24}}
mesh: {data: 1, fsdp: -1}
"""

CALL = """
from pathlib import Path

from speech_ed_flax.commands.plan import plan

raise SystemExit(plan(config=Path("config.yaml"), topology="v5e:2x2", as_json=True))
"""


@pytest.mark.skipif(
    find_spec("libtpu") is None,
    reason="no compiler for TPUs: pip install 'speech_ed_flax[aot]' brings it",
)
def test_step_and_generation_are_planned_for_tpus_that_are_not_there(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "heard.tsv").write_text(f"audio\ttext\n{SPEECH}\thello there\n")
    result = subprocess.run(
        [sys.executable, "-c", CALL],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]
    report = json.loads(result.stdout)
    assert report["mesh"] == {"data": 1, "fsdp": 4, "tensor": 1}
    assert report["devices"] == 4
    assert 0 < report["padding"] < 1
    step, search = report["findings"]
    assert (step["program"], search["program"]) == ("train", "generate")
    for found in (step, search):
        assert found["refusal"] is None
        assert 0 < found["costs"]["arguments"] < found["costs"]["peak"] < report["memory"]
        assert found["costs"]["flops"] > 0
    assert {"all-gather", "reduce-scatter"} <= {one["kind"] for one in step["costs"]["exchanges"]}
    # The devices tell each other at every token whether they are done, and nothing else.
    (agreement,) = search["costs"]["exchanges"]
    assert agreement["endless"]
    assert (agreement["kind"], agreement["count"]) == ("all-reduce", 1)
    assert agreement["bytes"] <= 4
