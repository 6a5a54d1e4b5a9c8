"""What a plan reads and says, without compiling anything."""

import json
from subprocess import CompletedProcess

import pytest
from families import DECODERS, SHALLOW, joint

from speech_ed_flax.commands import plan as command
from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.mesh import MeshSettings
from speech_ed_flax.model import build
from speech_ed_flax.training.planning import describe as described
from speech_ed_flax.training.planning.collectives import Exchange, find_exchanges
from speech_ed_flax.training.planning.compilation import too_large
from speech_ed_flax.training.planning.job import Job, batch_like
from speech_ed_flax.training.planning.report import Costs, Finding, Report
from speech_ed_flax.training.planning.topology import GIB, parse_topology
from speech_ed_flax.training.settings import StepSettings

PROGRAM = """\
%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%all-reduce-scatter (x: f32[8,2]) -> f32[2,2] {
  %x = f32[8,2]{1,0} parameter(0)
  ROOT %whole = f32[8,2]{1,0} all-reduce(%x), to_apply=%sum
}

%known (state: (s32[], bf16[4])) -> (s32[], bf16[4]) {
  %small = bf16[4]{0:T(256)} parameter(0)
  %start = (bf16[4]{0}, bf16[16]{0}) all-gather-start(%small), dimensions={0}
  %done = bf16[16]{0} all-gather-done(%start)
}

%counted (state: (s32[], bf16[4])) -> pred[] {
  %three = s32[]{:T(128)} constant(3), metadata={}
  %state = (s32[], bf16[4]{0}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %again = pred[]{:T(512)} compare(%turn, %three), direction=LT
}

%search (state: (pred[])) -> (pred[]) {
  %pass = (f32[2]{0}, f32[2]{0}, u32[], u32[]) collective-permute-start(%row)
  %row = f32[2]{0} parameter(0)
}

%unfinished (state: (pred[])) -> pred[] {
  %mine = pred[] parameter(0)
  ROOT %any = pred[] all-reduce(%mine), to_apply=%sum
}

ENTRY %main (x: f32[8,2]) -> f32[8,2] {
  %p = f32[8,2]{1,0} parameter(0)
  %both = (f32[8,2]{1,0}, s8[4]{0}) all-reduce(%p, %q), to_apply=%sum
  %q = s8[4]{0} parameter(1)
  %scattered = f32[2,2]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter
  %scan = (s32[], bf16[4]{0}) while(%t), condition=%counted, body=%known
  %told = (s32[], bf16[4]{0}) while(%t), condition=%unfinished, body=%known, \
backend_config={"known_trip_count":{"n":"5"}}
  ROOT %found = (pred[]) while(%t), condition=%unfinished, body=%search
}
"""


def test_exchanges_are_counted_by_kind_and_in_loops_as_often_as_they_happen():
    assert find_exchanges(PROGRAM) == (
        Exchange("all-gather", False, 3 + 5, (3 + 5) * 16 * 2),
        Exchange("all-reduce", False, 1 + 5, 8 * 2 * 4 + 4 + 5),
        Exchange("all-reduce", True, 1, 1),
        Exchange("collective-permute", True, 1, 2 * 4),
        Exchange("reduce-scatter", False, 1, 8 * 2 * 4),
    )


@pytest.mark.parametrize(
    ("name", "count", "gib"),
    [
        ("v5e:4x4", 16, 15.75),
        ("v3:2x2", 8, 15.48),
        ("v4:2x2x4", 16, 30.75),
        ("h100:8", 8, 79.0),
    ],
)
def test_a_topology_tells_devices_and_their_memory(name, count, gib):
    topology = parse_topology(name)
    assert topology.count == count
    assert topology.memory == int(gib * GIB)


def test_one_tpu_is_a_host_of_one():
    assert parse_topology("v5e:1x1").description["chips_per_host_bounds"] == (1, 1, 1)


def test_the_cpu_has_as_many_devices_as_its_process_is_told(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_some_flag=1")
    flags = parse_topology("cpu:8").environment["XLA_FLAGS"]
    assert flags == "--xla_some_flag=1 --xla_force_host_platform_device_count=8"


@pytest.mark.parametrize("name", ["v5e", "v5e:16", "v5e:0x4", "v5e:4x", "v9:2x2", "h100:2x4", ""])
def test_a_name_that_is_no_topology_is_refused_with_those_that_are(name):
    with pytest.raises(ConfigError, match=r"is no topology: write v5e:4x4.*tpu7x.*h100.*cpu"):
        parse_topology(name)


def test_what_the_compiler_says_of_too_large_a_program_becomes_numbers():
    said = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (68.25G) exceeds available HBM (15.75G)."
    )
    assert too_large(said) == "needs 68.25 GiB of the 15.75 GiB of a device"
    assert too_large("RESOURCE_EXHAUSTED: no numbers").startswith("does not fit on a device: RES")


COSTS = Costs(2 * GIB, 6 * GIB, 8 * GIB, 3e12, (Exchange("all-reduce", True, 2, 4096),), 12.0)


def process(monkeypatch, returncode: int, stdout: str = "", stderr: str = "") -> None:
    """Lets the compiler's process end like this."""
    ended = CompletedProcess([], returncode, stdout.encode(), stderr.encode())
    monkeypatch.setattr(described.subprocess, "run", lambda *_, **__: ended)


@pytest.fixture(scope="module")
def job():
    module = build(joint(SHALLOW, DECODERS["gpt2"]))
    batch = batch_like(module, Shape(samples=400, labels=8, rows=4))
    tpus = parse_topology("v5e:2x2")
    return Job("train", module, StepSettings(1, 0), MeshSettings(), tpus, batch)


def test_a_program_that_the_compiler_only_warns_of_is_refused_too(monkeypatch, job):
    costs = {**vars(COSTS), "peak": 17 * GIB, "exchanges": [vars(COSTS.exchanges[0])]}
    process(monkeypatch, 0, f"noise\n{json.dumps({'costs': costs})}\n")
    found, refusal = described.compile_apart(job)
    assert found is not None
    assert found.exchanges == COSTS.exchanges
    assert refusal == "needs 17.00 GiB of the 15.75 GiB of a device"


def test_a_compiler_that_aborts_is_an_error_that_says_what_it_said(monkeypatch, job):
    process(monkeypatch, -6, stderr="noise\nF0000 check failed: too many chips\n  @ 0x7f\n")
    with pytest.raises(ConfigError, match="v5e:2x2 aborted: F0000 check failed: too many chips"):
        described.compile_apart(job)


def test_settings_that_do_not_fit_together_are_said_as_they_are(monkeypatch, job):
    process(monkeypatch, 0, json.dumps({"error": "a batch of 3 utterances does not divide."}))
    with pytest.raises(ConfigError, match=r"^a batch of 3 utterances does not divide\.$"):
        described.compile_apart(job)


def test_a_report_reads_as_text():
    shape = Shape(samples=160_000, labels=40, rows=64)
    findings = [
        Finding("train", shape, None, "needs 68.25 GiB of the 15.75 GiB of a device"),
        Finding("generate", shape, COSTS, None),
    ]
    mesh = {"data": 4, "fsdp": 4, "tensor": 1}
    report = Report("v5e:4x4", 16, 16 * GIB, mesh, findings)
    assert command._lines(report, 0.0812, 16_000) == [
        "v5e:4x4: 16 devices of 16.00 GiB, data=4, fsdp=4, tensor=1",
        "8.1% of the planned batches is padding",
        "",
        "train 64 x 10.00 s, 40 labels: does not fit: needs 68.25 GiB of the 15.75 GiB of a device",
        "",
        "generate 64 x 10.00 s, 40 labels: fits",
        "  memory              8.00 GiB (50%) of a device at most",
        "    arguments         2.00 GiB",
        "    temporaries       6.00 GiB",
        "  work                3,000.0 GFLOP of a device",
        "  all-reduce          2 of 4.00 KiB in all for each token",
        "  compiled in         12.0 s",
    ]
