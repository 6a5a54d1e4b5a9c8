"""What the machine can do at most: read memory, and multiply matrices."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PACKAGES = ("jax", "jaxlib", "numpy")


def load(request: dict[str, Any]) -> Callable[[], Any]:
    """Returns a function that does the task once: "read" or "multiply", of ``size``."""
    return {"read": _read, "multiply": _multiply}[request["task"]](request["size"])


def _read(size: int) -> Callable[[], None]:
    """Reads ``size`` bytes of float32, as many threads as cores, each its own part."""
    threads = os.cpu_count() or 1
    parts = np.array_split(np.ones(size // 4, np.float32), threads)
    pool = ThreadPoolExecutor(threads)

    def read() -> None:
        list(pool.map(np.max, parts))

    return read


def _multiply(size: int) -> Callable[[], None]:
    """Multiplies two square float32 matrices of ``size`` rows."""
    matrix = jnp.ones((size, size), jnp.float32)
    product = jax.jit(jnp.matmul)

    def multiply() -> None:
        product(matrix, matrix).block_until_ready()

    return multiply
