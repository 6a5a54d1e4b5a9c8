"""Which shard a process is, by what its launcher says."""

import pytest

from speech_ed_flax.commands.outcome import UsageError
from speech_ed_flax.commands.shards import own_shard

ARRAY = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        (ARRAY, "3/4"),
        (ARRAY | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, "3/4"),
        (ARRAY | {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, "6/8"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}, "1/8"),
        ({"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3"}, "3/3"),
        ({"JAX_PROCESS_ID": "1", "JAX_NUM_PROCESSES": "2"}, "2/2"),
        ({"TPU_WORKER_ID": "1", "TPU_WORKER_HOSTNAMES": "a,b,c,d"}, "2/4"),
    ],
)
def test_the_shard_is_what_the_launcher_says(environment, shard):
    assert own_shard(environment) == shard


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "no launcher says which process this is"),
        ({"SLURM_PROCID": "first", "SLURM_NTASKS": "2"}, "'first'.*name K/N"),
    ],
)
def test_a_launcher_that_says_nothing_useful_is_an_error(environment, message):
    with pytest.raises(UsageError, match=message):
        own_shard(environment)
