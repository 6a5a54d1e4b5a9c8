"""A model as a program that runs where nothing but JAX is installed."""

PLATFORMS = ("cpu", "cuda", "tpu")
"""That one program can be for."""
