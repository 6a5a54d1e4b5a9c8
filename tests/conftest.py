"""What every test runs under: the CPU, and no deprecated call from this package."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import functools
from collections.abc import Callable

import pytest
from families import DECODERS, ENCODERS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "error::DeprecationWarning:speech_ed_flax")


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable:
    """Builds a model in PyTorch and in JAX from two names of ``families``, each pair once."""
    pytorch = pytest.importorskip("pytorch", reason="PyTorch is not installed")

    @functools.cache
    def build(encoder: str, decoder: str):
        folder = tmp_path_factory.mktemp(f"{encoder}-{decoder}")
        return pytorch.build(ENCODERS[encoder], DECODERS[decoder], folder)

    return build
