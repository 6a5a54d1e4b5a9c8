"""How fast a training goes and what it costs, between two lines of its journal."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}
"""FLOP/s in bfloat16 that makers state, by the beginning of the device's name."""


@dataclass
class Meter:
    """Counts what the steps since the last line did.

    Attributes:
        devices: how many compute.
        peak: FLOP/s of one of them; None if it is not known.
    """

    devices: int = 1
    peak: float | None = None
    _started: float = field(default_factory=time.perf_counter)
    _waited: float = 0.0
    _seconds: float = 0.0
    _padded: float = 0.0
    _flops: float = 0.0
    _steps: int = 0

    def add(self, seconds: float, padded: float, waited: float, flops: float) -> None:
        """Counts one step.

        Args:
            seconds: of speech in its batch.
            padded: seconds that were computed, padding included.
            waited: seconds for which the step waited for the batch.
            flops: floating-point operations of the step; 0 if they are not known.
        """
        self._steps += 1
        self._seconds += seconds
        self._padded += padded
        self._waited += waited
        self._flops += flops

    def read(self, labels: int) -> dict[str, float]:
        """Returns the rates since the last reading, and begins anew; ``labels`` were trained on."""
        elapsed = time.perf_counter() - self._started
        rates = {
            "speed/audio_seconds_per_second": self._seconds / elapsed,
            "speed/tokens_per_second": labels / elapsed,
            "speed/seconds_per_step": elapsed / max(self._steps, 1),
            "speed/padding_percent": 100 * (1 - self._seconds / max(self._padded, 1e-9)),
            "speed/data_wait_percent": 100 * self._waited / elapsed,
            "speed/teraflops_per_second": self._flops / elapsed / 1e12,
            "memory/gigabytes": peak_bytes() / 1e9,
        }
        if self.peak:
            used = self._flops / elapsed / self.devices / self.peak
            rates["speed/mfu_percent"] = 100 * used
        self.restart()
        return rates

    def restart(self) -> None:
        """Forgets what was counted: time that no step took, such as an evaluation."""
        self._started, self._steps = time.perf_counter(), 0
        self._waited = self._seconds = self._padded = self._flops = 0.0


def peak_flops(device: Any) -> float | None:
    """Returns the FLOP/s of a device, if its kind is known."""
    names = sorted(PEAKS, key=len, reverse=True)
    return next((PEAKS[name] for name in names if device.device_kind.startswith(name)), None)


def program_flops(compiled: Any) -> float:
    """Returns the operations of a compiled program; 0 where the backend does not count them."""
    costs = compiled.cost_analysis() or {}
    return max(float(costs.get("flops", 0.0)), 0.0)


def peak_bytes() -> int:
    """Returns the most memory that was used: of the fullest local device, or of the process."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [one["peak_bytes_in_use"] for one in stats if "peak_bytes_in_use" in one]
    if used:
        return max(used)
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def finite(value: Any) -> float | None:
    """Returns a number as JSON has it, which knows no infinity."""
    number = float(np.asarray(value))
    return number if np.isfinite(number) else None
