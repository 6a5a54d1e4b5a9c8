"""Checkpoints of a training: saved in the background, verified before they are restored."""

import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from speech_ed_flax.errors import CheckpointError
from speech_ed_flax.training.records import (
    Criterion,
    Record,
    find_checkpoint,
    find_steps,
    rank,
    read_costs,
    read_record,
)
from speech_ed_flax.training.retention import Retention
from speech_ed_flax.training.sealing import contents, handlers
from speech_ed_flax.training.stored import check, nested, read_state

_LOGGER = logging.getLogger(__name__)
_NONE, _ALL_DAMAGED = -1, -2
_REPLACED, _DAMAGED = ".replaced", ".damaged"


@dataclass(frozen=True)
class Restored:
    """A checkpoint that was read.

    Attributes:
        step: its number.
        state: placed as was asked for.
        progress: as it was saved.
    """

    step: int
    state: Any
    progress: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training, in one folder on a disk that all processes see.

    Each is a folder named by its step: the state, a JSON file with the progress and the metrics,
    and the digests of all files. It gets its name when everything in it has reached the disk, so
    that a program that is killed leaves whole checkpoints only. The newest ones stay, and the best;
    a checkpoint without the metric is never one of the best, NaN is the worst. Every process calls
    every method, in the same order.
    """

    def __init__(
        self,
        folder: str | Path,
        keep_best: int = 1,
        metric: str | None = None,
        lower_is_better: bool = True,
        keep_latest: int = 2,
    ):
        """Opens a folder, which the first ``save`` creates if need be.

        Args:
            folder: of this training alone.
            keep_best: how many of the best are kept.
            metric: by which they are chosen; None keeps the newest only.
            lower_is_better: whether 0 is good.
            keep_latest: how many of the newest are kept; with a single one there may be nothing to
                fall back to when it is damaged.
        """
        self.folder = Path(folder).absolute()
        self._criterion = None if metric is None else Criterion(metric, lower_is_better)
        self._retention = Retention(keep_latest, keep_best)
        self._manager: ocp.CheckpointManager | None = None
        self._own: list[int] = []
        """Steps that were saved or restored here, the last one last."""
        self._settle_replaced()
        _agreed(0)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def save(
        self,
        step: int,
        state: Any,
        progress: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
    ) -> bool:
        """Saves a checkpoint in the background, once the one before is finished.

        When it returns, the memory of the state may be given away to the next step.

        Args:
            step: number of the checkpoint.
            state: any pytree of arrays and random keys.
            progress: whatever else is needed to go on, as JSON; the same on every process.
            metrics: of this state, if it was evaluated; likewise.

        Returns:
            False if the checkpoint is there already, and there are no metrics to be added to it.

        Raises:
            CheckpointError: naming the folder, if this checkpoint or the one before cannot be
                written, or if another training left one of this step.
        """
        self.wait()
        replaced = (self.folder / str(step)).exists()
        if replaced and not self._gains(step, metrics):
            return False
        evaluated = None if metrics is None else dict(metrics)
        record = Record(dict(progress), evaluated, self._criterion)
        if replaced:
            self.close()
            self._rename(step, _REPLACED)
        with self._explaining(step):
            manager = self._opened()
            cost = self._criterion and self._criterion.cost(evaluated)
            if cost is not None:
                self._retention.costs[step] = cost
            manager.save(step, args=contents(nested(state), record.to_json()), force=True)
        self._own.append(step)
        return True

    def _gains(self, step: int, metrics: Mapping[str, float] | None) -> bool:
        """Tells whether ``metrics`` are news of a checkpoint that is there."""
        path = self.folder / str(step)
        if step not in self._own:
            raise CheckpointError(
                f"{path}: it is there already, from another training: resume that one, or name "
                "another folder."
            )
        return metrics is not None and read_record(path).metrics is None

    def wait(self) -> None:
        """Returns when the last checkpoint is finished.

        Raises:
            CheckpointError: naming its folder, if it could not be written.
        """
        if self._manager is not None and self._own:
            with self._explaining(self._own[-1]):
                self._manager.wait_until_finished()
            self._settle_replaced()

    def close(self) -> None:
        """Finishes the last checkpoint; raises as ``wait``."""
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def steps(self) -> list[int]:
        """Returns the steps of the finished checkpoints, lowest first; damaged ones are among."""
        return find_steps(self.folder)

    def latest(self) -> int | None:
        """Returns the highest step of a finished checkpoint."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Returns the step of the finished checkpoint with the best metric, if any has one."""
        return next(iter(rank(self._costs())), None)

    def _costs(self) -> dict[int, float]:
        criterion = self._criterion
        return {} if criterion is None else read_costs(self.folder, self.steps(), criterion)

    def restore(self, abstract_state: Any, step: int | None = None) -> Restored | None:
        """Reads a checkpoint after comparing its files with their digests.

        Args:
            abstract_state: pytree of arrays or ``jax.ShapeDtypeStruct``, with the shardings that
                the state is to have; the mesh need not be the one it was saved on.
            step: of the checkpoint. If omitted the newest one that is whole: damaged newer ones
                are warned of, and renamed so that nobody takes them for checkpoints.

        Returns:
            The checkpoint; None if no step was asked for and there are no checkpoints.

        Raises:
            CheckpointError: naming the damaged file of every checkpoint, if none is whole; or the
                leaves in which the state differs from ``abstract_state``.
        """
        self.wait()
        if step is not None:
            find_checkpoint(self.folder, step)
        candidates = self.steps()[::-1] if step is None else [step]
        found = self._first_whole(candidates)
        if found == _NONE:
            return None
        checkpoint = self.folder / str(found)
        state = read_state(checkpoint, abstract_state)
        restored = Restored(found, state, read_record(checkpoint).progress)
        for damaged in candidates[: candidates.index(found)]:
            self.close()
            self._rename(damaged, _DAMAGED)
        self._own.append(found)
        return restored

    def _first_whole(self, candidates: Sequence[int]) -> int:
        """Returns the first undamaged step, which process 0 finds out for all; or ``_NONE``."""
        found, reasons = _NONE, []
        for step in candidates if jax.process_index() == 0 else ():
            try:
                check(self.folder / str(step))
                found = step
                break
            except CheckpointError as error:
                reasons.append(str(error))
                found = _ALL_DAMAGED
        found = _agreed(found)
        if found == _ALL_DAMAGED:
            raise CheckpointError(
                " ".join(reasons) or f"{self.folder}: damaged, process 0 says which files."
            )
        for reason in reasons:
            _LOGGER.warning("%s Going back to checkpoint %d.", reason, found)
        return found

    def _rename(self, step: int, ending: str) -> None:
        """Lets a checkpoint be one no longer, so that another one can be written in its place."""
        if jax.process_index() == 0:
            endings = itertools.chain([ending], (f".{n}{ending}" for n in itertools.count(2)))
            names = (self.folder / f"{step}{name}" for name in endings)
            (self.folder / str(step)).rename(next(name for name in names if not name.exists()))
        self._own = [own for own in self._own if own != step]
        _agreed(0)

    def _settle_replaced(self) -> None:
        """Removes a checkpoint whose replacement is there, brings it back if that never came."""
        if jax.process_index() == 0:
            for path in self.folder.glob(f"*{_REPLACED}"):
                if path.with_suffix("").exists():
                    shutil.rmtree(path)
                else:
                    path.rename(path.with_suffix(""))

    def _opened(self) -> ocp.CheckpointManager:
        if self._manager is None:
            self._retention.costs = self._costs()
            options = ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                # What it would read may be damaged, and it would not get over that.
                lightweight_initialize=True,
                preservation_policy=self._retention,
            )
            self._manager = _Manager(self.folder, handler_registry=handlers(), options=options)
        return self._manager

    @contextmanager
    def _explaining(self, step: int) -> Iterator[None]:
        """Turns what orbax raises while it writes into a sentence, and starts afresh after it."""
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            self._manager = None
            self._own = [own for own in self._own if own != step]
            self._settle_replaced()
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise CheckpointError(
                f"{self.folder / str(step)}: it could not be written, {reason} (is the disk full? "
                "the checkpoints before it are as they were)."
            ) from error


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, which leaves the question of preemption to the loop.

    JAX notes the step of the last one who asked; the manager asks again, in the background, for the
    step it has just saved. All processes could then agree on a step that is past.
    """

    def reached_preemption(self, step: int) -> bool:
        """Returns False without asking."""
        return False


def _agreed(number: int) -> int:
    """Returns process 0's number on every process, once all of them are there."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))
