"""Speech with texts: manifests, packed folders, batches of few static shapes, and their loading.

numpy only: the processes that load batches import neither jax nor flax.
"""
