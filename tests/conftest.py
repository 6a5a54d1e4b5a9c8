"""What every test runs under: the CPU, quick compilation, no deprecated call in the package."""

import functools
import os
from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest
from families import DECODERS, ENCODERS

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", "")  # the user's own stays as it is

# Tiny models compile for far longer than they run: with these XLA compiles 4 times as fast and
# does the same arithmetic. XLA_FLAGS="" tests what users run.
QUICK_COMPILATION = (
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
)
if version("jaxlib").startswith("0.10."):  # later ones do not know it, and stop at what is unknown
    QUICK_COMPILATION += ("--xla_cpu_use_fusion_emitters=false",)
os.environ.setdefault("XLA_FLAGS", " ".join(QUICK_COMPILATION))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error::DeprecationWarning:speech_ed_flax")


@pytest.fixture(scope="module", autouse=True)
def forgotten_programs() -> Iterator[None]:
    """Lets go of what a module has compiled: gigabytes, by the end of all tests."""
    yield
    import jax

    jax.clear_caches()


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Builds a model in PyTorch and in JAX from two names of ``families``, each pair once."""
    pytorch = pytest.importorskip("pytorch", reason="PyTorch is not installed")

    @functools.cache
    def build(encoder: str, decoder: str):
        folder = tmp_path_factory.mktemp(f"{encoder}-{decoder}")
        return pytorch.build(ENCODERS[encoder], DECODERS[decoder], folder)

    return build
