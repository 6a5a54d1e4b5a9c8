"""What a command makes of its process; each case in a process of its own."""

import os
import subprocess
import sys

import pytest

from speech_ed_flax.commands.process import cache_folder


def run(code: str, **environment: str) -> str:
    settings = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env=settings | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_memory_is_kept_where_there_is_glibc():
    code = "from speech_ed_flax.memory import keep_memory; print(keep_memory(), keep_memory())"
    glibc = hasattr(os, "confstr") and "glibc" in (os.confstr("CS_GNU_LIBC_VERSION") or "")
    assert run(code) == f"{glibc} {glibc}"


@pytest.mark.parametrize("chosen", [None, "elsewhere"])
def test_compiled_programs_are_kept_in_the_users_cache_folder(tmp_path, chosen):
    code = (
        "from speech_ed_flax.commands.process import settle; settle()\n"
        "import jax; print(jax.config.jax_compilation_cache_dir)"
    )
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    if chosen:
        environment["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / chosen)
    expected = tmp_path / (chosen or "speech_ed_flax/compiled")
    assert run(code, **environment) == str(expected)


def test_the_cache_folder_is_below_home_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "speech_ed_flax" / "compiled"
