"""Memory that a process keeps for itself."""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of ``mallopt``, from glibc's ``malloc.h``."""


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
