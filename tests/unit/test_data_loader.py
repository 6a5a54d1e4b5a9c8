"""The loader: the same batches however they are loaded, by processes without JAX."""

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
from speech import write_manifest
from worker_tasks import heavy_modules, square

from speech_ed_flax.audio.features import LogMelFeatures, WaveformFeatures
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.loader import Loader, Part
from speech_ed_flax.data.planning import plan_evaluation, plan_training
from speech_ed_flax.data.settings import DataSettings
from speech_ed_flax.data.store import Store
from speech_ed_flax.data.worker import map_in_order, start_worker
from speech_ed_flax.errors import AudioError, ConfigError, SpeechError

pytest.importorskip("grain", reason="grain is not installed")

SETTINGS = DataSettings(batch_seconds=4.0, shapes=3, speeds=(0.9, 1.0, 1.1))
MULTIPLE = 4
STEPS = 12


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    seconds = np.random.default_rng(0).uniform(0.2, 0.8, 30).round(3).tolist()
    return Store.open(write_manifest(tmp_path_factory.mktemp("speech"), seconds))


@pytest.fixture(scope="module")
def labels(store) -> Labels:
    return Labels.of([[3 + row % 7, 4, 2] for row in range(len(store))])


@pytest.fixture(scope="module")
def plan(store, labels):
    return plan_training(store, labels, SETTINGS, MULTIPLE)


def load(store, labels, plan, steps, features=None, **options):
    """Returns the batches of some steps, from the loader's start on."""
    features = features or WaveformFeatures()
    with Loader(store, labels, features, plan, **options) as batches:
        return [next(batches) for _ in range(steps)]


@pytest.fixture(scope="module")
def expected(store, labels, plan):
    return load(store, labels, plan, STEPS, workers=0)


def assert_same(found, expected):
    for got, wanted in zip(found, expected, strict=True):
        assert (got.step, got.epoch, got.shape) == (wanted.step, wanted.epoch, wanted.shape)
        assert (got.ids, got.seconds, got.padding) == (wanted.ids, wanted.seconds, wanted.padding)
        for name in ("inputs", "mask", "labels", "rows"):
            np.testing.assert_array_equal(getattr(got, name), getattr(wanted, name))


def test_a_batch_holds_its_rows_as_the_encoder_hears_them(store, labels, plan, expected):
    assert any((batch.rows == -1).any() for batch in expected)
    for step, batch in enumerate(expected):
        planned = plan[step]
        assert batch.step == step
        assert batch.inputs.shape == batch.mask.shape == (batch.shape.rows, batch.shape.samples)
        np.testing.assert_array_equal(batch.mask.sum(axis=1), planned.samples)
        np.testing.assert_array_equal(batch.labels, labels.padded(planned.rows, batch.shape.labels))
        assert batch.seconds == pytest.approx(batch.mask.sum() / 16_000)
        assert batch.padding == pytest.approx(1 - batch.mask.mean())
        for place, row in enumerate(planned.rows):
            assert batch.ids[place] == (store.ids[row] if row >= 0 else "")
            if row == -1:
                assert not batch.mask[place].any()
                assert (batch.labels[place] == -100).all()
            elif planned.speeds[place] == 1:
                alone, _ = WaveformFeatures().features([store.samples(int(row))])
                heard = batch.inputs[place, : alone.shape[1]]
                np.testing.assert_array_equal(heard, alone[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_are_the_same_for_any_number_of_workers(store, labels, plan, expected, workers):
    assert_same(load(store, labels, plan, STEPS, workers=workers), expected)


@pytest.mark.parametrize("count", [2, 4])
def test_the_parts_of_several_processes_make_up_the_batches_of_one(
    store, labels, plan, expected, count
):
    parts = [
        load(store, labels, plan, STEPS, part=Part(index, count), workers=0)
        for index in range(count)
    ]
    for wanted, *pieces in zip(expected, *parts, strict=True):
        for name in ("inputs", "mask", "labels", "rows"):
            joined = np.concatenate([getattr(piece, name) for piece in pieces])
            np.testing.assert_array_equal(joined, getattr(wanted, name))
        assert {piece.ids for piece in pieces} == {wanted.ids}
        assert {piece.seconds for piece in pieces} == {wanted.seconds}
        assert {piece.shape for piece in pieces} == {wanted.shape}


@pytest.mark.parametrize("start", [1, 5, 11])
def test_loading_goes_on_from_any_step_as_if_it_had_never_stopped(
    store, labels, plan, expected, start
):
    found = load(store, labels, plan, STEPS - start, start=start, workers=0)
    assert_same(found, expected[start:])


def test_an_evaluation_ends_after_every_row(store, labels):
    evaluation = plan_evaluation(store, labels, SETTINGS, MULTIPLE)
    with Loader(store, labels, WaveformFeatures(), evaluation, workers=0) as loader:
        batches = list(loader)
    rows = np.concatenate([batch.rows for batch in batches])
    assert sorted(rows[rows >= 0].tolist()) == list(range(len(store)))
    assert len(batches) == len(evaluation)


def test_an_encoder_that_hears_one_length_gets_one_shape(store, labels):
    features = LogMelFeatures(feature_size=8, chunk_length=1)
    settings = DataSettings(batch_seconds=4.0, max_seconds=1.0)
    plan = plan_training(store, labels, settings, multiple=2, fixed_samples=16_000)
    assert len(plan.shapes) == 1
    (batch,) = load(store, labels, plan, 1, features, workers=0)
    assert batch.inputs.shape == (4, 8, 100)
    with pytest.raises(ConfigError, match=r"max_seconds=4\.0 is more than the model hears: use 1"):
        plan_training(store, labels, DataSettings(max_seconds=4.0), fixed_samples=16_000)
    with pytest.raises(ConfigError, match=r"and the model hears 0\.5 s"):
        plan_evaluation(store, labels, settings, fixed_samples=8_000)


def test_workers_never_import_jax(store, labels, plan):
    assert {"jax", "grain"} <= sys.modules.keys()
    with Loader(store, labels, WaveformFeatures(), plan, workers=1) as batches:
        next(batches)
        (pool,) = batches._crew._pools
        assert pool.submit(heavy_modules, 0).result() == []


def test_a_row_that_cannot_be_read_is_an_error_that_names_it(tmp_path, labels):
    path = write_manifest(tmp_path, [0.5] * 4, duration=[0.5] * 4)
    store = Store.open(path)
    (tmp_path / "2.wav").unlink()
    few = Labels.of([[1]] * 4)
    plan = plan_training(store, few, DataSettings(batch_seconds=2.0))
    for workers in (0, 1):
        with (
            Loader(store, few, WaveformFeatures(), plan, workers=workers) as batches,
            pytest.raises(AudioError, match=r"2\.wav: no such file"),
        ):
            next(batches)


def test_closing_ends_the_workers_and_the_batches(store, labels, plan):
    before = set(multiprocessing.active_children())
    loader = Loader(store, labels, WaveformFeatures(), plan, workers=1)
    next(loader)
    assert set(multiprocessing.active_children()) - before
    loader.close()
    assert not set(multiprocessing.active_children()) - before
    with pytest.raises(StopIteration):
        next(loader)


def test_rows_that_cannot_be_shared_and_rates_that_differ_are_refused(store, labels, plan):
    with pytest.raises(ConfigError, match="cannot be shared by 3 processes"):
        load(store, labels, plan, 1, part=Part(0, 3), workers=0)
    with pytest.raises(ConfigError, match="part 2 of 2"):
        Part(2, 2)
    with pytest.raises(ConfigError, match="the model hears 8000 Hz"):
        Loader(store, labels, WaveformFeatures(sampling_rate=8_000), plan)


@pytest.mark.parametrize("workers", [0, 2])
def test_results_of_other_processes_come_in_order(workers):
    assert list(map_in_order(square, range(20), workers)) == [n**2 for n in range(20)]


def test_a_process_that_dies_is_an_error():
    with pytest.raises(SpeechError, match="a process that decodes sound died"):
        list(map_in_order(square, [1, -1, 2], workers=1))


def test_a_worker_heeds_no_signal_but_its_parents():
    if not hasattr(os, "fork"):
        pytest.skip("signals like these are of Unix")
    pool = start_worker(print)
    number = pool.submit(os.getpid).result()
    subprocess.run(["kill", "-TERM", str(number)], check=True)
    subprocess.run(["kill", "-INT", str(number)], check=True)
    assert pool.submit(square, 3).result() == 9
    (worker,) = [child for child in multiprocessing.active_children() if child.pid == number]
    while worker.exitcode is None:  # a request that meets a stranger's, still unread, is lost
        worker.terminate()
        worker.join(1)
    pool.shutdown()


def test_a_worker_does_not_begin_with_the_main_module(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "print('main')\n"
        "from speech_ed_flax.data.worker import map_in_order\n"
        "print(list(map_in_order(abs, [-1, -2], 1)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["main", "[1, 2]", ""]


def test_what_a_worker_prints_is_not_among_the_results(tmp_path):
    script = tmp_path / "loud.py"
    script.write_text(
        "import os\n"
        "from functools import partial\n"
        "from speech_ed_flax.data.worker import map_in_order\n"
        "print(list(map_in_order(partial(os.write, 1), [b'noise'], 1)))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[5]\n", "noise")
