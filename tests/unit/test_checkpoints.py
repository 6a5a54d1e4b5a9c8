import itertools
import json
import logging
import multiprocessing
import os
import random
import resource
import shutil
import signal
import socket

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.training.checkpoints import Checkpoints
from speech_ed_flax.training.preemption import Preemption
from speech_ed_flax.training.records import Criterion
from speech_ed_flax.training.retention import Retention

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["speech_ed_flax.training.checkpoints"])


def make_state(number=0):
    """Returns a state as training has it: odd containers, half precision, random keys."""
    params = {"encoder": {"kernel": jnp.full((4, 6), number, jnp.float32)}, "bias": jnp.arange(3.0)}
    algorithm = optax.adam(1e-3, mu_dtype=jnp.bfloat16)
    return {
        "step": jnp.int32(number),
        "keys": (jax.random.key(number), jax.random.split(jax.random.key(1), 2)),
        "params": params,
        "optimizer": optax.chain(optax.clip(1.0), algorithm).init(params),
        "average": None,
    }


def abstract(state):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state
    )


def assert_same(found, meant):
    assert jax.tree.structure(found) == jax.tree.structure(meant)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(meant), strict=True):
        assert left.dtype == right.dtype
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder, metric="wer") as checkpoints:
        for step in (10, 20, 30):
            checkpoints.save(step, make_state(step), {"at": step}, {"wer": step / 100})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def test_a_state_is_restored_bit_for_bit_with_its_types_and_keys(saved):
    restored = Checkpoints(saved).restore(abstract(make_state()))
    assert (restored.step, restored.progress) == (30, {"at": 30})
    assert_same(restored.state, make_state(30))


def test_there_is_nothing_to_restore_in_a_new_folder(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore(make_state()) is None
    assert (checkpoints.steps(), checkpoints.latest(), checkpoints.best()) == ([], None, None)
    assert not (tmp_path / "new").exists()


def test_a_step_that_was_asked_for_is_restored(saved):
    assert_same(Checkpoints(saved).restore(make_state(), 10).state, make_state(10))
    with pytest.raises(CheckpointError, match="no checkpoint of step 15; there are 10, 20, 30"):
        Checkpoints(saved).restore(make_state(), 15)


def test_memory_that_is_given_away_after_saving_was_saved_as_it_was(tmp_path):
    step = jax.jit(lambda x: x + 1, donate_argnums=0)
    values = jnp.zeros(1_000_000)
    with Checkpoints(tmp_path, keep_latest=4) as checkpoints:
        for number in range(4):
            checkpoints.save(number, {"values": values}, {})
            for _ in range(5):
                values = step(values)
        for number in range(4):
            restored = checkpoints.restore({"values": values}, number)
            np.testing.assert_array_equal(restored.state["values"], 5.0 * number)


def files_of(folder, step):
    return sorted(path for path in (folder / str(step)).rglob("*") if path.is_file())


def largest_file(folder):
    return max(files_of(folder, 30), key=lambda path: path.stat().st_size)


def flip_a_byte(folder):
    path = largest_file(folder)
    contents = bytearray(path.read_bytes())
    contents[len(contents) // 2] ^= 1
    path.write_bytes(contents)
    return path


def cut_short(folder):
    path = largest_file(folder)
    os.truncate(path, path.stat().st_size - 1)
    return path


def remove_a_file(folder):
    path = folder / "30" / "state" / "_METADATA"
    path.unlink()
    return path


def empty(folder):
    shutil.rmtree(folder / "30")
    (folder / "30").mkdir()
    return folder / "30"


def garble_progress(folder):
    path = folder / "30" / "progress" / "progress.json"
    path.write_text('{"progress": ')
    return path


def garble_digests(folder):
    path = folder / "30" / "digests" / "sha256.json"
    path.write_text('["garbled"]')
    return path


DAMAGES = (flip_a_byte, cut_short, remove_a_file, empty, garble_progress, garble_digests)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_checkpoint_is_warned_of_and_the_one_before_is_taken(
    folder, damage, caplog
):
    path = damage(folder)
    with Checkpoints(folder, metric="wer") as checkpoints:
        with caplog.at_level(logging.WARNING):
            restored = checkpoints.restore(make_state())
        assert_same(restored.state, make_state(20))
        assert len(caplog.messages) == 1
        assert str(path) in caplog.messages[0]
        assert caplog.messages[0].endswith("Going back to checkpoint 20.")
        assert (checkpoints.steps(), checkpoints.latest()) == ([10, 20], 20)
        assert (folder / "30.damaged").is_dir()
        checkpoints.save(30, make_state(31), {"at": 31})
    restored = Checkpoints(folder).restore(make_state())
    assert_same(restored.state, make_state(31))


@pytest.mark.parametrize("name", ["_CHECKPOINT_METADATA", "commit_success.txt"])
def test_files_that_nobody_reads_may_be_damaged(folder, name):
    (folder / "30" / name).write_bytes(b"{garbled")
    assert_same(Checkpoints(folder).restore(make_state()).state, make_state(30))


def test_if_every_checkpoint_is_damaged_the_error_names_a_file_of_each(folder):
    for step in (10, 20, 30):
        (folder / str(step) / "state" / "_METADATA").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        Checkpoints(folder).restore(make_state())
    for step in (10, 20, 30):
        assert f"{folder}/{step}/state/_METADATA: it has 0 bytes" in str(caught.value)
    assert Checkpoints(folder).steps() == [10, 20, 30]


def test_other_names_in_the_folder_are_no_checkpoints(folder):
    for name in ("junk", "7.damaged", "40.orbax-checkpoint-tmp", "050", "-1"):
        (folder / name).mkdir()
    (folder / "60").write_text("a file")
    checkpoints = Checkpoints(folder)
    assert checkpoints.steps() == [10, 20, 30]
    assert checkpoints.restore(make_state()).step == 30


def test_a_state_of_another_model_is_refused_with_what_differs(saved):
    other = make_state()
    other["params"]["encoder"]["kernel"] = jnp.zeros((4, 7))
    other["params"]["new"] = jnp.zeros(2)
    other["step"] = other["step"].astype(jnp.uint32)
    with pytest.raises(CheckpointError) as caught:
        Checkpoints(saved).restore(other)
    for part in (
        "params/encoder/kernel is float32[4, 6] there and float32[4, 7] here",
        "params/new is missing there and float32[2] here",
        "step is int32[] there and uint32[] here",
    ):
        assert part in str(caught.value)


def test_metrics_are_added_to_a_checkpoint_that_had_none(tmp_path):
    with Checkpoints(tmp_path, metric="wer") as checkpoints:
        assert checkpoints.save(1, make_state(1), {"judged": False})
        assert not checkpoints.save(1, make_state(1), {"judged": False})
        assert checkpoints.best() is None
        assert checkpoints.save(1, make_state(1), {"judged": True}, {"wer": 0.5})
        assert not checkpoints.save(1, make_state(1), {"judged": True}, {"wer": 0.5})
        assert checkpoints.best() == 1
        assert checkpoints.restore(make_state()).progress == {"judged": True}
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_checkpoint_whose_replacement_never_came_is_brought_back(folder):
    (folder / "30").rename(folder / "30.replaced")
    assert Checkpoints(folder).latest() == 30
    shutil.copytree(folder / "20", folder / "20.replaced")
    assert Checkpoints(folder).steps() == [10, 20, 30]
    assert not (folder / "20.replaced").exists()


def test_a_checkpoint_of_another_training_is_not_overwritten(folder):
    with Checkpoints(folder) as checkpoints, pytest.raises(CheckpointError, match="another train"):
        checkpoints.save(20, make_state(), {})


NAN = float("nan")


def kept_of(lower, *values, **counts):
    """Returns the steps, from 1 on, that are there after each had its value of the metric."""

    class Info:
        def __init__(self, step):
            self.step = step

    criterion, retention, there = Criterion("x", lower), Retention(**counts), []
    for step, value in enumerate(values, 1):
        cost = criterion.cost({} if value is None else {"x": value})
        if cost is not None:
            retention.costs[step] = cost
        there.append(Info(step))
        stays = retention.should_preserve(there, context=None)
        there = [info for info, kept in zip(there, stays, strict=True) if kept]
    return [info.step for info in there]


@pytest.mark.parametrize(
    ("lower", "values", "kept"),
    [
        (True, (0.1, 0.2, 0.3, 0.4, 0.5), [1, 4, 5]),
        (True, (0.5, 0.2, 0.3, 0.2, 0.5), [2, 4, 5]),
        (False, (0.5, 0.9, 0.3, 0.2, 0.5), [2, 4, 5]),
        (True, (NAN, 0.9, NAN, NAN, NAN), [2, 4, 5]),
        (False, (NAN, 0.9, NAN, NAN, NAN), [2, 4, 5]),
        (True, (None, 0.9, None, None, None), [2, 4, 5]),
        (True, (None, None, None, None, None), [4, 5]),
    ],
)
def test_the_best_checkpoint_stays_and_so_do_the_latest(lower, values, kept):
    assert kept_of(lower, *values, latest=2, best=1) == kept


def test_several_best_checkpoints_stay():
    assert kept_of(True, 0.5, 0.3, 0.4, 0.9, 0.8, latest=1, best=2) == [2, 3, 5]


def test_what_claims_to_be_of_the_future_does_not_drive_out_the_present(folder):
    (folder / "9000").mkdir()
    with Checkpoints(folder, keep_latest=1, keep_best=0) as checkpoints:
        checkpoints.save(40, make_state(), {})
    assert checkpoints.steps() == [40, 9000]


def test_a_resumed_training_knows_which_checkpoint_was_the_best(tmp_path):
    for step, wer in enumerate((0.2, NAN, 0.1, None, 0.4, 0.3), 1):
        with Checkpoints(tmp_path, metric="wer") as checkpoints:
            checkpoints.save(step, {"x": jnp.zeros(1)}, {}, wer and {"wer": wer})
    assert (checkpoints.steps(), checkpoints.best()) == ([3, 5, 6], 3)


def on_eight_devices(folder):
    jax.config.update("jax_num_cpu_devices", 8)
    devices = np.array(jax.devices())
    wide = NamedSharding(Mesh(devices.reshape(2, 4), ("data", "fsdp")), PartitionSpec("fsdp"))
    narrow = NamedSharding(Mesh(devices[:2], ("fsdp",)), PartitionSpec(None, "fsdp"))
    values = np.arange(48.0, dtype=np.float32).reshape(8, 6)
    shape = jax.ShapeDtypeStruct(values.shape, values.dtype, sharding=narrow)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, {"values": jax.device_put(values, wide)}, {})
        found = checkpoints.restore({"values": shape}).state["values"]
    assert found.sharding == narrow
    np.testing.assert_array_equal(found, values)


def test_a_state_is_restored_onto_another_mesh(tmp_path):
    run_processes((on_eight_devices, tmp_path))
    found = Checkpoints(tmp_path).restore({"values": jnp.zeros((8, 6))}).state["values"]
    np.testing.assert_array_equal(found, np.arange(48.0).reshape(8, 6))


def run_processes(*calls):
    processes = [PROCESSES.Process(target=call, args=arguments) for call, *arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * len(calls)


def on_a_full_disk(folder):
    checkpoints = Checkpoints(folder, keep_latest=1)
    checkpoints.save(1, {"values": jnp.zeros(100)}, {})
    checkpoints.wait()
    noise = np.random.default_rng(0).bytes(400_000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    for step in (2, 3):
        checkpoints.save(step, {"values": jnp.frombuffer(noise, jnp.uint8)}, {})
        with pytest.raises(CheckpointError, match=rf"{folder}/{step}: it could not be written"):
            checkpoints.wait()
        assert checkpoints.restore({"values": jnp.ones(100)}).step == 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoints.save(4, {"values": jnp.zeros(100)}, {})
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir()) == ["4"]


def test_a_full_disk_is_an_error_that_names_the_checkpoint_and_the_latest_stays(tmp_path):
    run_processes((on_a_full_disk, tmp_path))


def stamped(number):
    return {"values": [jnp.full(100_000, number, jnp.float32)] * 3, "key": jax.random.key(number)}


def keep_saving(folder, pipe):
    checkpoints = Checkpoints(folder)
    restored = checkpoints.restore(stamped(0))
    if restored is not None:
        assert_same(restored.state, stamped(restored.step))
        assert restored.progress == {"stamp": restored.step}
    step = restored.step if restored else 0
    pipe.send(step)
    while True:
        step += 1
        checkpoints.save(step, stamped(step), {"stamp": step})
        checkpoints.wait()
        pipe.send(step)


def test_whenever_the_program_is_killed_the_last_finished_checkpoint_is_there(tmp_path):
    finished, chance = 0, random.Random(0)
    for _ in range(10):
        ours, theirs = PROCESSES.Pipe(duplex=False)
        process = PROCESSES.Process(target=keep_saving, args=(tmp_path, theirs))
        process.start()
        theirs.close()
        steps = [ours.recv() for _ in range(chance.randint(1, 2))]
        assert steps[0] >= finished
        process.join(timeout=chance.uniform(0, 0.2))
        process.kill()
        process.join()
        steps += list(iter(lambda ours=ours: received(ours), None))
        finished = steps[-1]
    restored = Checkpoints(tmp_path).restore(stamped(0))
    assert restored.step >= finished > 5
    assert_same(restored.state, stamped(restored.step))


def received(pipe):
    """Returns what comes next; None at the end."""
    try:
        return pipe.recv()
    except EOFError:
        return None


def of_two_processes(folder, port, number):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which background jobs ignore
    jax.config.update("jax_num_cpu_devices", 2)
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
    sharding = NamedSharding(Mesh(jax.devices(), ("data",)), PartitionSpec("data"))
    values = np.arange(8.0, dtype=np.float32)
    array = jax.make_array_from_callback((8,), sharding, lambda index: values[index])
    with Checkpoints(folder) as checkpoints, Preemption() as preemption:
        for step in (1, 2):
            checkpoints.save(step, {"values": array + step}, {"at": step}, {"wer": 0.1})
        checkpoints.wait()
        if number == 0:
            (folder / "2" / "progress" / "progress.json").write_text("garbled")
        restored = checkpoints.restore({"values": array})
        assert (restored.step, restored.progress, checkpoints.latest()) == (1, {"at": 1}, 1)
        for shard in restored.state["values"].addressable_shards:
            np.testing.assert_array_equal(shard.data, values[shard.index] + 1)
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)  # which passes it on as SIGTERM
        step = next(step for step in itertools.count() if preemption.reached(step))
        checkpoints.save(step + 3, {"values": array}, {"stopped": step})
    (folder / f"stopped-{number}").write_text(json.dumps(step))
    jax.distributed.shutdown()


def test_processes_agree_on_the_checkpoint_and_on_the_step_to_stop_at(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run_processes(*((of_two_processes, tmp_path, port, number) for number in range(2)))
    stopped = {json.loads((tmp_path / f"stopped-{number}").read_text()) for number in range(2)}
    assert len(stopped) == 1
    restored = Checkpoints(tmp_path).restore({"values": jnp.zeros(8)})
    assert restored.progress == {"stopped": stopped.pop()}
    np.testing.assert_array_equal(restored.state["values"], np.arange(8))
