"""The benchmark's pure parts: statistics, the comparison of tokens, presets and tables."""

# pyright: reportMissingImports=false, reportArgumentType=false

import importlib.util
import sys
from itertools import groupby
from pathlib import Path

import pytest

# Not by sys.path: transformers would take benchmarks/kernels.py for the package of that name.
_PACKAGE = Path(__file__).parents[2] / "benchmarks" / "contenders" / "__init__.py"
_SPEC = importlib.util.spec_from_file_location("contenders", _PACKAGE)
sys.modules["contenders"] = importlib.util.module_from_spec(_SPEC)

from contenders.rounds import compared, generated  # noqa: E402
from contenders.table import number, ratios, render, spread, time_per_token  # noqa: E402
from contenders.workloads import ENTRIES, PRESETS, Workload  # noqa: E402

GREEDY = Workload("base", "greedy", 10, 1)


def contender(*seconds, equal=None):
    times = {"first": 9.0, "seconds": list(seconds), "peak": 2 * 10**9}
    return times | {"equal": equal, "generated": equal and 64}


def measured(workload, **contenders):
    names = {name.replace("_", " "): found for name, found in contenders.items()}
    return vars(workload) | {"name": workload.name, "contenders": names}


@pytest.fixture
def document():
    workloads = [
        measured(
            GREEDY, ours=contender(2.0, 1.0, 3.0, equal=[1, 1]), PyTorch=contender(4.0, 4.0, 4.0)
        ),
        measured(Workload("base", "greedy", 10, 1, tokens=16), ours=contender(1.04, 0.04, 2.04)),
    ]
    machine = {
        "processor": "A processor",
        "cores": 2,
        "memory": 24 * 10**9,
        "flags": ["avx2"],
        "threads": "default",
        "date": "2026-11-22",
    }
    return {
        "machine": machine,
        "rounds": 3,
        "versions": {"ours": {"jax": "0.10.2"}, "PyTorch": {"torch": "2.13.0"}},
        "limits": {
            "read": {"amount": 4 * 10**9, "seconds": [0.25, 0.2]},
            "multiply": {"amount": 10**11, "seconds": [1.0]},
        },
        "step_parameters": {"base": 50_000_000},
        "workloads": workloads,
    }


def test_a_spread_is_the_median_the_minimum_and_the_maximum():
    assert spread([3.0, 1.0, 2.0, 10.0]) == (2.5, 1.0, 10.0)
    assert str(spread([0.5, 1.5, 12.0])) == "1.50 (0.5 to 12.00)"


def test_ratios_are_taken_round_by_round():
    assert ratios([1.0, 4.0], [2.0, 2.0]) == [0.5, 2.0]
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


@pytest.mark.parametrize(
    ("value", "text"), [(0.04567, "0.0457"), (1.0, "1.00"), (1234.5, "1234.50"), (-3.0, "-3.00")]
)
def test_numbers_have_no_exponent(value, text):
    assert number(value) == text


def test_time_per_token_is_what_more_tokens_cost_in_the_same_round():
    assert time_per_token([5.0, 9.0, 7.0], [1.0, 5.0, 1.0], 4) == 1.0


def test_forced_tokens_are_the_last_of_a_row():
    assert generated(Workload("base", "greedy", 1, 1, tokens=2), [2, 7, 8]) == [7, 8]


def test_whispers_prompt_end_and_padding_do_not_count():
    whisper = Workload("whisper", "greedy", 30, 1, tokens=None)
    assert generated(whisper, [50257, 50362, 11, 12, 50256, 50256]) == [11, 12]


def test_tokens_are_compared_with_the_first_contenders_row_by_row():
    found = compared(
        Workload("base", "greedy", 1, 2, tokens=2),
        {"ours": [[2, 7, 8], [2, 5, 6]], "PyTorch": [[7, 8], [5, 9]], "broken": None},
    )
    assert found["PyTorch"] == {"generated": 4, "equal": (1, 2)}
    assert found["broken"] == {"generated": None, "equal": None}


def test_drawn_tokens_are_not_compared():
    tokens = {"ours": [[7, 8]], "PyTorch": [[9, 9]]}
    found = compared(Workload("base", "sampling", 1, 1, tokens=2), tokens)
    assert found["PyTorch"] == {"generated": 2, "equal": None}


def test_a_table_shows_times_and_their_ratio(document):
    assert (
        "| base greedy, 10 s, batch 1 | 2.00 (1.00 to 3.00) "
        "| 4.00 (4.00 to 4.00): **0.5** (0.25 to 0.75) |"
    ) in render([document])


def test_a_table_shows_time_per_token_over_the_limit_of_memory(document):
    # 200 MB at 20 GB/s are 10 ms; 48 tokens cost 0.96 s, that is 20 ms each.
    row = "| ours: base greedy, 10 s, batch 1 | 200.00 | 10.00 | 20.00 | 2.00 |"
    assert row in render([document])


def test_a_table_has_no_column_for_who_was_not_there(document):
    text = render([document])
    assert "faster-whisper" not in text
    assert "int8" not in text
    assert "| 1 of 1, 64 |" in text


def test_tables_join_several_documents(document):
    start = {"import": 1.0, "load": 2.0, "first transcript": 3.0, "second transcript": 0.5}
    cold = {key: document[key] for key in ("machine", "rounds", "versions")}
    cold["cold_start"] = [{"name": "ours", "rounds": [start]}]
    text = render([document, cold])
    assert "| ours | 1.00 | 2.00 | 3.00 | 0.5 | 6.00 (6.00 to 6.00) |" in text
    assert "| base greedy, 10 s, batch 1 | 2.00" in text


@pytest.mark.parametrize("preset", PRESETS)
def test_a_presets_workloads_have_names_of_their_own_and_stand_by_model(preset):
    workloads = list(PRESETS[preset]())
    assert len({workload.name for workload in workloads}) == len(workloads)
    models = [model for model, _ in groupby(workload.model for workload in workloads)]
    assert len(set(models)) == len(models)


@pytest.mark.parametrize("preset", PRESETS)
def test_we_compete_in_every_workload_and_are_asked_first(preset):
    for workload in PRESETS[preset]():
        assert workload.contenders[0] == "ours"
        assert set(workload.contenders) <= set(ENTRIES)
