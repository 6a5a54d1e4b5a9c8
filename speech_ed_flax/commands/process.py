"""What a command makes of the process that it has for itself."""

import os
from pathlib import Path

from speech_ed_flax.memory import keep_memory


def settle() -> None:
    """Keeps freed memory, and compiled programs in the user's cache folder for the next run.

    ``JAX_COMPILATION_CACHE_DIR`` names another folder; empty, it keeps nothing.
    """
    import jax

    keep_memory()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def cache_folder() -> Path:
    """Returns where compiled programs are kept."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "speech_ed_flax" / "compiled"
