"""What the figures were taken on."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")


def machine() -> dict[str, Any]:
    """Returns the processor, what it can do that matters here, its load, and the day."""
    return {
        "processor": _cpu_field("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "flags": [flag for flag in _FLAGS if flag in _cpu_field("flags").split()],
        "system": platform.platform(),
        "threads": "every library's default pool",
        "load": round(os.getloadavg()[0], 2),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_field(name: str) -> str:
    """Returns a line of Linux's description of the first core, empty elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in fields if key.strip() == name), "")
