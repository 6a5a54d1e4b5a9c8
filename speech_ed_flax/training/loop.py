"""The loop: batch after batch, judged and saved in between, until it is done or interrupted."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.errors import ConfigError
from speech_ed_flax.mesh import make_mesh
from speech_ed_flax.staging import staging
from speech_ed_flax.training.checkpoints import Checkpoints
from speech_ed_flax.training.config import LOWER_IS_BETTER, TrainConfig
from speech_ed_flax.training.evaluation import EvaluationInterrupted, Evaluator, Judgement
from speech_ed_flax.training.materials import Materials, gather, keep
from speech_ed_flax.training.meter import Meter, finite, peak_flops, program_flops
from speech_ed_flax.training.preemption import Preemption
from speech_ed_flax.training.profiler import Profiler
from speech_ed_flax.training.progress import Progress
from speech_ed_flax.training.reporter import Reporter, Silence
from speech_ed_flax.training.run import Resume, RunFolder
from speech_ed_flax.training.sharding import abstract_state, create_on, state_sharding
from speech_ed_flax.training.state import TrainState, exported
from speech_ed_flax.training.step import Metrics, make_train_step

LATEST = ("gradient_norm", "learning_rate")
"""Metrics of which a report tells the last value."""


class Ending(Enum):
    """Why a training came to its end."""

    FINISHED = "finished"
    STOPPED_EARLY = "stopped early"
    PREEMPTED = "preempted"


def train(config: TrainConfig, path: Path, resume: Resume = "auto") -> Ending:
    """Trains a model, or goes on with the training in a folder.

    Args:
        config: of the training.
        path: the folder; see ``RunFolder``.
        resume: "auto" goes on if there is a checkpoint, "never" refuses to, "must" refuses to
            begin.

    Raises:
        ConfigError: naming what does not fit together.
        CheckpointError: if there are checkpoints and none can be restored.
    """
    run, first = RunFolder(path), jax.process_index() == 0
    if first:
        run.begin(config, resume)
    best_by = f"{next(iter(config.evaluate), '')}/{config.evaluation.best_by}"
    lower = LOWER_IS_BETTER[config.evaluation.best_by]
    with (
        Checkpoints(
            run.checkpoints,
            keep_best=config.checkpoints.keep_best,
            metric=best_by if config.evaluate else None,
            lower_is_better=lower,
        ) as checkpoints,
        Preemption() as preemption,
    ):
        resumed = checkpoints.latest() is not None
        materials = gather(config, make_mesh(config.layout), run.model if resumed else None)
        if first and not resumed:
            keep(materials.model, run.model)
        state, progress = _start(config, materials, checkpoints, resumed)
        reporter = Reporter(config, run, progress.step) if first else Silence()
        try:
            loop = Loop(config, run, materials, checkpoints, preemption, reporter, state, progress)
            return loop.run()
        finally:
            reporter.close()


def _start(
    config: TrainConfig, materials: Materials, checkpoints: Checkpoints, resumed: bool
) -> tuple[TrainState, Progress]:
    """Returns the state to begin with, or the one to go on with."""
    if not resumed:
        state = create_on(
            materials.mesh,
            materials.module,
            materials.model.params,
            materials.settings,
            config.seed,
        )
        return state, Progress(plan=materials.plan.digest)
    shapes = abstract_state(materials.module, materials.settings)
    places = state_sharding(materials.mesh, shapes)

    def placed(leaf: Any, place: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

    restored: Any = checkpoints.restore(jax.tree.map(placed, shapes, places))
    progress = Progress(**restored.progress)
    if progress.plan != materials.plan.digest:
        raise ConfigError(
            f"{checkpoints.folder}: was trained on other batches: give it the data, the settings "
            "of data and the number of devices that it began with (data.row_multiple makes batches "
            "that other numbers of devices share), or begin anew in another folder."
        )
    return restored.state, progress


@dataclass
class Loop:
    """A training under way."""

    config: TrainConfig
    run_folder: RunFolder
    materials: Materials
    checkpoints: Checkpoints
    preemption: Preemption
    reporter: Silence
    state: TrainState
    progress: Progress
    _taken: list[tuple[int, Any, Any]] = field(default_factory=list)
    """Number, row ids and metrics of the steps since the last line of the journal."""

    def run(self) -> Ending:
        """Trains until the end, or until something ends it before."""
        steps = self.config.optimizer.steps or 0
        self.meter = Meter(self.materials.mesh.size, peak_flops(jax.devices()[0]))
        self.evaluator = Evaluator(
            self.materials.model,
            self.materials.settings,
            self.config.evaluation,
            self.materials.mesh,
            self.materials.place,
        )
        ending = self._stand()
        if ending is None and self.progress.step < steps:
            ending = self._steps(steps)
        self.checkpoints.wait()
        if ending is Ending.PREEMPTED:
            return ending
        self._export()
        return ending or Ending.FINISHED

    def _steps(self, steps: int) -> Ending | None:
        """Takes the steps that are left; returns why not all of them, if so."""
        programs = self._compile()
        profiler = Profiler(self.config.profiled(), self.run_folder.tensorboard)
        self.meter.restart()
        with (
            profiler,
            self.materials.load(self.progress.step) as batches,
            self.reporter.shown(self.progress.step),
        ):
            for loaded in batches:
                program, flops = programs[loaded.shape]
                with profiler.step(self.progress.step + 1):
                    self.state, metrics = program(self.state, self.materials.place(loaded))
                self.progress.step += 1
                padded = loaded.shape.rows * loaded.shape.samples / self.materials.rate
                self.meter.add(loaded.seconds, padded, loaded.waited, flops)
                self._taken.append((self.progress.step, loaded.ids, metrics))
                ending = self._stand()
                if ending is not None or self.progress.step >= steps:
                    return ending
        return None

    def _compile(self) -> dict[Shape, tuple[Any, float]]:
        """Compiles the step for every shape of batch before the first one; and counts its work."""
        materials, programs = self.materials, {}
        step = make_train_step(materials.module, materials.settings, materials.mesh)
        shapes = materials.plan.shapes
        for number, shape in enumerate(shapes, 1):
            size = f"{shape.rows} x {shape.samples / materials.rate:.1f} s"
            self.reporter.say(f"compiling step {number} of {len(shapes)}: {size}")
            compiled = step.lower(self.state, materials.batch_like(shape)).compile()
            # The loop over micro-batches is counted once.
            programs[shape] = compiled, program_flops(compiled) * self.config.accumulate
        return programs

    def _stand(self) -> Ending | None:
        """Does what is due after a step: reports, judges, saves; returns why to end, if so."""
        step, last = self.progress.step, self.progress.step == self.config.optimizer.steps
        if last or step % self.config.log.every == 0:
            self._report()
        scores = None
        if self._is_due(step, last):
            with suppress(EvaluationInterrupted):  # then it is judged when the training goes on
                scores = self._judge(step)
            self.meter.restart()
        preempted = self.preemption.reached(step)
        due = last or step % self.config.checkpoints.every == 0 or scores is not None or preempted
        if step and due and (scores is not None or self.checkpoints.latest() != step):
            self._report()
            self.checkpoints.save(step, self.state, asdict(self.progress), scores)
        if preempted:
            return Ending.PREEMPTED
        patience = self.config.evaluation.patience
        if patience is not None and self.progress.stale >= patience:
            return Ending.STOPPED_EARLY
        return None

    def _is_due(self, step: int, last: bool) -> bool:
        wanted = step > 0 and (last or step % self.config.evaluation.every == 0)
        return wanted and bool(self.materials.sets) and self.progress.evaluated < step

    def _report(self) -> None:
        """Writes down the steps since the last report."""
        if not self._taken:
            return
        taken, self._taken = self._taken, []
        metrics = jax.device_get([metrics for _, _, metrics in taken])
        for (step, ids, _), one in zip(taken, metrics, strict=True):
            if one.skipped:
                self.reporter.skipped(step, ids, one)
        values = {f"train/{name}": value for name, value in _means(metrics).items()}
        values["train/skipped"] = int(self.state.skipped)
        values |= self.meter.read(int(sum(one.labels for one in metrics)))
        self.reporter.measured(self.progress.step, values)

    def _judge(self, step: int) -> dict[str, float]:
        """Evaluates every set, and takes note of the results."""
        found: dict[str, Judgement] = {}
        for name, evaluated in self.materials.sets.items():
            with evaluated.load() as batches:
                found[name] = self.evaluator.judge(
                    self.state, batches, evaluated.references, self._is_asked_to_stop
                )
        numbers = {
            f"{name}/{metric}": value
            for name, judgement in found.items()
            for metric, value in judgement.numbers.items()
        }
        first, best_by = next(iter(found)), self.config.evaluation.best_by
        value = finite(numbers[f"{first}/{best_by}"])
        self.progress.judged(step, value, LOWER_IS_BETTER[best_by])
        self.reporter.judged(step, found)
        return numbers

    def _is_asked_to_stop(self) -> bool:
        """Tells it at once; several processes agree on it only between steps."""
        return jax.process_count() == 1 and self.preemption.signal is not None

    def _export(self) -> None:
        """Writes the best model that the checkpoints hold, or the last one without evaluations."""
        best, state = self.checkpoints.best(), self.state
        if best is not None and best != self.progress.step:
            restored: Any = self.checkpoints.restore(jax.tree.map(_like, self.state), best)
            state = restored.state
        params = exported(state)
        if jax.process_count() > 1:
            params = multihost_utils.process_allgather(params, tiled=True)
        if jax.process_index() == 0:
            with staging(self.run_folder.best) as folder:
                self.materials.model.save_pretrained(folder, params)
        self.reporter.say(f"the model is in {self.run_folder.best}")


def _means(metrics: Sequence[Metrics]) -> dict[str, float | None]:
    """Returns the mean losses over the labels of the steps that were not skipped, and the rest."""
    used = [one for one in metrics if not one.skipped]
    labels = [int(one.labels) for one in used]
    means: dict[str, float | None] = {
        name: float(np.average([getattr(one, name) for one in used], weights=labels))
        if used
        else None
        for name in ("loss", "cross_entropy", "ctc")
    }
    means |= {name: finite(getattr(metrics[-1], name)) for name in LATEST}
    return means


def _like(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
