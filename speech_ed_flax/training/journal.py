"""What a training writes down as it goes: JSON lines always, TensorBoard and wandb if asked."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from speech_ed_flax.errors import ConfigError


@runtime_checkable
class Writer(Protocol):
    """Takes numbers by name, and texts."""

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes what was measured at a step."""

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text, in Markdown."""

    def close(self) -> None:
        """Writes what is left."""


class JsonLines:
    """One object a line, each with its ``step``; what comes after a resumed step is cut off."""

    def __init__(self, path: Path, step: int = 0):
        """Opens the file for appending after ``step``."""
        kept = [line for line in _lines(path) if _step(line) <= step]
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        os.replace(temporary, path)
        self._file = path.open("a", encoding="utf-8")

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes one line."""
        self._file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
        self._file.flush()

    def text(self, step: int, name: str, text: str) -> None:
        """Writes nothing: predictions have a file of their own."""

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _lines(path: Path) -> Sequence[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else ()


def _step(line: str) -> float | int:
    """Returns the step of a line; of one that was cut short by a crash, infinity."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


class TensorBoard:
    """Event files for TensorBoard."""

    def __init__(self, folder: Path, step: int = 0):
        """Opens a new event file that replaces what was written after ``step``."""
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise ConfigError(
                "log.tensorboard needs tensorboardX: pip install 'speech_ed_flax[train]', or turn "
                "it off."
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=step + 1)

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes scalars; ``a/b`` stands in the group ``a``."""
        for name, value in values.items():
            if value is not None:
                self._writer.add_scalar(name, value, step)

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text."""
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WeightsAndBiases:
    """A run on Weights & Biases."""

    def __init__(self, project: str, folder: Path, config: Mapping[str, Any]):
        """Starts the run, or continues the one that began in this folder."""
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise ConfigError("log.wandb needs wandb: pip install wandb.") from None
        run = {"id": folder.name, "name": folder.name, "resume": "allow"}
        self._run: Any = wandb.init(project=project, dir=str(folder), config=dict(config), **run)

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs scalars."""
        self._run.log(dict(values), step=step)

    def text(self, step: int, name: str, text: str) -> None:
        """Logs nothing: predictions are in the run folder."""

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


class Journal:
    """All writers as one."""

    def __init__(self, *writers: Writer):
        """Joins the writers; there may be none."""
        self._writers = writers

    def numbers(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes what was measured at a step."""
        for writer in self._writers:
            writer.numbers(step, values)

    def text(self, step: int, name: str, text: str) -> None:
        """Writes a text, in Markdown."""
        for writer in self._writers:
            writer.text(step, name, text)

    def close(self) -> None:
        """Writes what is left."""
        for writer in self._writers:
            writer.close()
