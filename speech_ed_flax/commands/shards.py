"""Which part of the recordings a process does, by what its launcher says."""

import os
from collections.abc import Mapping

from speech_ed_flax.commands.outcome import UsageError

ARRAY = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
"""Variables with the number of a job in an array, how many there are, and the first number."""

LAUNCHERS = (
    ("SLURM_PROCID", "SLURM_NTASKS"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("JAX_PROCESS_ID", "JAX_NUM_PROCESSES"),
    ("TPU_WORKER_ID", "TPU_WORKER_HOSTNAMES"),
)
"""Variables with the number of a process, from 0, and how many there are, or their hosts."""


def own_shard(environment: Mapping[str, str] = os.environ) -> str:
    """Returns ``K/N``: this process is the Kth of N that were launched to share the work.

    Raises:
        UsageError: no launcher said so, or what it said is no number.
    """
    try:
        places = [*_in_array(environment), *_of_launcher(environment)]
    except ValueError as error:
        raise UsageError(f"--shard auto: {error} in what the launcher set; name K/N.") from None
    if not places:
        raise UsageError(
            "--shard auto: no launcher says which process this is (Slurm, Open MPI, a TPU pod, or "
            "JAX_PROCESS_ID and JAX_NUM_PROCESSES); name K/N."
        )
    number, count = 0, 1
    for place, places_there in places:
        number, count = number * places_there + place, count * places_there
    return f"{number + 1}/{count}"


def _in_array(environment: Mapping[str, str]) -> list[tuple[int, int]]:
    if ARRAY[0] not in environment:
        return []
    number, count, first = (int(environment.get(name, "0")) for name in ARRAY)
    return [(number - first, count)]


def _of_launcher(environment: Mapping[str, str]) -> list[tuple[int, int]]:
    for number, count in LAUNCHERS:
        if number in environment and count in environment:
            known = environment[count]
            hosts = known.split(",") if count.endswith("HOSTNAMES") else range(int(known))
            return [(int(environment[number]), len(hosts))]
    return []
