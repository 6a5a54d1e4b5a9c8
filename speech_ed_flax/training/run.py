"""The folder of a training: what is where, and what it was begun with."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import jax

from speech_ed_flax.errors import ConfigError
from speech_ed_flax.settings import read_settings, to_yaml
from speech_ed_flax.training.config import TrainConfig
from speech_ed_flax.training.records import find_steps

Resume = Literal["auto", "never", "must"]

PACKAGES = ("speech_ed_flax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain")


class RunFolder:
    """Where a training keeps everything.

    ``config.yaml`` and ``versions.json`` say how it was made, ``model/`` is the model without
    weights, ``checkpoints/`` what a training continues from, ``best/`` the model that came out,
    ``metrics.jsonl``, ``predictions.jsonl``, ``skipped.jsonl`` and ``tensorboard/`` what it told.
    """

    def __init__(self, path: Path):
        """Names the folder; creates nothing."""
        self.path = path
        self.config = path / "config.yaml"
        self.model = path / "model"
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"
        self.metrics = path / "metrics.jsonl"
        self.predictions = path / "predictions.jsonl"
        self.skipped = path / "skipped.jsonl"
        self.tensorboard = path / "tensorboard"

    def begin(self, config: TrainConfig, resume: Resume) -> None:
        """Creates the folder, or makes sure that the training in it may go on.

        Raises:
            ConfigError: if there is a training and ``resume`` is "never", or none and it is "must",
                or one of another model.
        """
        begun = self.config.exists()
        if begun and resume == "never":
            raise ConfigError(
                f"{self.path}: holds a training already: name another folder, or use --resume auto."
            )
        if not begun and resume == "must":
            raise ConfigError(f"{self.path}: holds no training to resume: use --resume auto.")
        if not begun and self.path.exists() and any(self.path.iterdir()):
            raise ConfigError(f"{self.path}: is not empty and no run: name another folder.")
        if begun and find_steps(self.checkpoints):  # else the model is made anew
            self._check_model(config)
        self.path.mkdir(parents=True, exist_ok=True)
        _fresh(self.config).write_text(to_yaml(config), encoding="utf-8")
        write_json(self.path / "versions.json", versions())
        os.replace(_fresh(self.config), self.config)

    def _check_model(self, config: TrainConfig) -> None:
        """Raises ConfigError if the model that was made is not the one that is asked for."""
        made = read_settings(TrainConfig, self.config).model
        for name in ("checkpoint", "encoder", "decoder", "tokenizer"):
            if getattr(made, name) != getattr(config.model, name):
                raise ConfigError(
                    f"{self.path}: model.{name} is not what the training began with: give it what "
                    f"{self.config.name} there says, or begin anew in another folder."
                )


def _fresh(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON that is there whole or not at all."""
    _fresh(path).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    os.replace(_fresh(path), path)


def versions() -> dict[str, Any]:
    """Returns what the training runs on."""
    device = jax.devices()[0]
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "devices": f"{jax.device_count()} x {device.device_kind}",
        "processes": jax.process_count(),
        "revision": _revision(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Returns the commit of the package's own repository, if it is run from one."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return found.stdout.strip() or None
