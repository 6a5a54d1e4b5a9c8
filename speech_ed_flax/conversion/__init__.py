"""Checkpoints of PyTorch and of Flax 4.x, in and out, without torch."""
