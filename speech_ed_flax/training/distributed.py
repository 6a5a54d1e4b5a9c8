"""Joining the processes of one training, which a launcher started on one host or on many."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import jax

from speech_ed_flax.errors import ConfigError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
"""What the environment may say in place of the arguments."""

LAUNCHERS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Variables in which launchers that JAX knows say how many processes they started."""

MARGIN = 30
"""Seconds that JAX is given beyond the time-out: it ends the process without saying why."""


def initialise_distributed(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    timeout: int = 300,
) -> None:
    """Joins the processes; does nothing where there is one, or where they are joined.

    Without arguments the environment says who takes part: ``VARIABLES``, or what Slurm, Open MPI
    or a TPU pod set. Call it before anything is computed. If the others do not come in time, the
    process says so and ends: JAX would abort it.

    Args:
        coordinator: host and port of process 0, ``10.0.0.1:1234``.
        processes: how many there are.
        process: the number of this one, from 0.
        timeout: seconds to wait for the others.

    Raises:
        ConfigError: if only some of the three are known, or the numbers make no sense.
    """
    if jax.distributed.is_initialized():
        return
    given = _from_environment(coordinator, processes, process)
    if given is None:
        if _launched():
            with _ending_after(timeout, "the launcher's processes did not join"):
                jax.distributed.initialize(initialization_timeout=timeout + MARGIN)
        return
    address, count, number = given
    if count == 1:
        return
    missing = f"process {number} of {count} did not find the others at {address}"
    with _ending_after(timeout, missing):
        jax.distributed.initialize(address, count, number, initialization_timeout=timeout + MARGIN)


def _from_environment(
    coordinator: str | None, processes: int | None, process: int | None
) -> tuple[str, int, int] | None:
    """Returns the three values, of which the environment fills what is not given; or None."""
    values = (coordinator, processes, process)
    found = [
        os.environ.get(name) if value is None else value
        for name, value in zip(VARIABLES, values, strict=True)
    ]
    names = ("coordinator", "processes", "process")
    missing = [name for name, value in zip(names, found, strict=True) if value is None]
    if len(missing) == len(names):
        return None
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} not known: give coordinator, processes and process together, or "
            f"set {', '.join(VARIABLES)}."
        )
    address, count, number = str(found[0]), _number(names[1], found[1]), _number(names[2], found[2])
    if ":" not in address:
        raise ConfigError(f"coordinator={address!r} has no port: use host:port.")
    if not 0 <= number < count:
        raise ConfigError(f"process={number} is not one of processes={count}: count from 0.")
    return address, count, number


def _number(name: str, value: int | str | None) -> int:
    if not str(value).isdecimal():
        raise ConfigError(f"{name}={value!r} is not a number.")
    return int(str(value))


def _launched() -> bool:
    """Tells whether a launcher that JAX can ask started several processes, or may have."""
    if any(int(os.environ.get(name, "1")) > 1 for name in LAUNCHERS):
        return True
    on_tpu = find_spec("libtpu") is not None and any(Path("/dev").glob("accel[0-9]*"))
    on_tpu |= find_spec("libtpu") is not None and any(Path("/dev/vfio").glob("[0-9]*"))
    return on_tpu and os.environ.get("JAX_PLATFORMS", "tpu").startswith("tpu")


@contextmanager
def _ending_after(seconds: int, reason: str) -> Iterator[None]:
    """Ends the process with a sentence if what is inside takes too long."""

    def end() -> None:
        sys.stderr.write(
            f"error: {reason} within {seconds} seconds: check that all processes were started, "
            "and that they can reach that address.\n"
        )
        sys.stderr.flush()
        os._exit(1)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
