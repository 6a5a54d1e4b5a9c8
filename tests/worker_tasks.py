"""What tests let other processes do; importing it must import nothing heavy."""

import os
import sys


def heavy_modules(_: int) -> list[str]:
    """Returns what a process should not have imported."""
    heavy = ("jax", "flax", "transformers", "torch", "grain")
    return [name for name in heavy if name in sys.modules]


def square(number: int) -> int:
    """Returns the square of a number, or dies of a negative one."""
    if number < 0:
        os._exit(7)
    return number**2
