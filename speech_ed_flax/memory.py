"""Memory: what there is, and what a process keeps for itself."""

import ctypes
from pathlib import Path
from typing import Any

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""

CGROUP = Path("/sys/fs/cgroup")
"""What limits a container."""


def keep_memory() -> bool:
    """Makes glibc keep freed memory instead of giving it back to the system.

    XLA:CPU frees its buffers after every call and faults every page in again at the next one: half
    of the time of a large attention (``benchmarks/kernels.py memory``). The setting is one of the
    whole process, so the library never makes it by itself; the command line does.

    Returns:
        Whether the setting was made: False where there is no glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, -1))


def device_memory(device: Any) -> int | None:
    """Returns the bytes that JAX may use on a device; None on a CPU, which has the host's."""
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit")


def free_memory(device: Any) -> int | None:
    """Returns the bytes that are free for JAX on a device; None where nobody knows."""
    limit = device_memory(device)
    if limit is not None:
        return limit - device.memory_stats()["bytes_in_use"]
    return host_memory()


def host_memory(meminfo: Path = Path("/proc/meminfo"), group: Path = CGROUP) -> int | None:
    """Returns the bytes that are available to this process; None where Linux does not say."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text().splitlines())
    except OSError:
        return None
    available = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
    except (OSError, ValueError):  # no group, or "max": no limit
        return available
    return max(min(available, most - used), 0)
