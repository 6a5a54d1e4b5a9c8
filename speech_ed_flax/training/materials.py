"""What a training needs before its first step: model, data, devices and their agreement."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import unflatten_dict
from jax.sharding import Mesh
from transformers import SpeechEncoderDecoderConfig

from speech_ed_flax.conversion.config import resolve_generation
from speech_ed_flax.conversion.hub import read_json
from speech_ed_flax.conversion.processor import Processor
from speech_ed_flax.conversion.save import write_json
from speech_ed_flax.creation import create
from speech_ed_flax.data.batches import Plan
from speech_ed_flax.data.buckets import Shape
from speech_ed_flax.data.joined import open_stores
from speech_ed_flax.data.labels import Labels
from speech_ed_flax.data.loader import Loader, Part
from speech_ed_flax.data.planning import plan_evaluation, plan_training
from speech_ed_flax.data.selection import FrameCount
from speech_ed_flax.data.store import Store
from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.mesh import DATA, FSDP
from speech_ed_flax.model import SpeechEncoderDecoder, abstract_params, build, with_layers
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.training.config import ModelSettings, TokenizerSettings, TrainConfig
from speech_ed_flax.training.settings import StepSettings
from speech_ed_flax.training.sharding import local_rows, place_batch
from speech_ed_flax.training.step import Batch
from speech_ed_flax.training.texts import encode_texts, silent_tokens


@dataclass(frozen=True)
class EvaluationSet:
    """A set to evaluate on.

    Attributes:
        load: begins to load its batches.
        references: what was said, by the ids of rows.
    """

    load: Callable[[], Loader]
    references: Mapping[str, str]


@dataclass(frozen=True)
class Materials:
    """Everything that a training is made of, but for its state.

    Attributes:
        model: with the parameters that the training begins with.
        module: the model's, as it is trained.
        settings: of the step.
        mesh: the devices.
        plan: the batches.
        load: begins to load the batches from a step on.
        sets: what is evaluated, by name.
    """

    model: FlaxSpeechEncoderDecoderModel
    module: SpeechEncoderDecoder
    settings: StepSettings
    mesh: Mesh
    plan: Any
    load: Callable[[int], Loader]
    sets: Mapping[str, EvaluationSet]

    @property
    def features(self) -> Any:
        """What the encoder hears of a clip."""
        return self.model.processor.features

    @property
    def rate(self) -> int:
        """Samples per second."""
        return self.features.sampling_rate

    def place(self, loaded: Any) -> Batch:
        """Puts this process's rows of a batch on the devices."""
        batch = Batch(loaded.inputs, loaded.labels, loaded.mask)
        return place_batch(self.mesh, batch, loaded.shape.rows)

    def batch_like(self, shape: Shape) -> Batch:
        """Returns the shapes of a batch."""
        values, mask = self.features.features([np.zeros(0)], shape.samples)

        def rows(array: np.ndarray) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((shape.rows, *array.shape[1:]), array.dtype)

        labels = np.zeros((1, shape.labels), np.int32)
        return Batch(rows(values), rows(labels), rows(mask))


def gather(config: TrainConfig, mesh: Mesh, begun: Path | None) -> Materials:
    """Returns what a training is made of.

    Args:
        config: of the training.
        mesh: the devices.
        begun: folder of the model without weights, if the training goes on; its state holds them.

    Raises:
        ConfigError: naming what does not fit together.
    """
    train = open_stores(config.train)
    model = reopen(begun, config.model.padding) if begun else make_model(config.model, train)
    module = with_layers(model.module, remat=config.model.remat, scan=config.model.scan)
    settings = step_settings(config, model)
    data = _Data(config, model, settings, mesh)
    labels = data.labels(train)
    plan = data.plan(train, labels)
    return Materials(
        model=model,
        module=module,
        settings=settings,
        mesh=mesh,
        plan=plan,
        load=lambda step: data.loader(train, labels, plan, step),
        sets={name: data.evaluation(path) for name, path in config.evaluate.items()},
    )


def make_model(settings: ModelSettings, train: Store) -> FlaxSpeechEncoderDecoderModel:
    """Returns the model that a training begins with.

    Raises:
        ConfigError: if it does not say how its encoder hears.
    """
    if settings.checkpoint is not None:
        model = FlaxSpeechEncoderDecoderModel.from_pretrained(
            settings.checkpoint, padding=settings.padding
        )
    else:
        tokenizer = settings.tokenizer
        if isinstance(tokenizer, TokenizerSettings):
            tokenizer = train_tokenizer(
                train.texts, tokenizer.kind, tokenizer.size, lower=tokenizer.lower
            )
        encoder, decoder = settings.encoder or {}, settings.decoder or {}
        model = create(encoder, decoder, tokenizer, padding=settings.padding)
    _ = model.processor.hearer  # refused here, before the data are read
    return model


def keep(model: FlaxSpeechEncoderDecoderModel, folder: Path) -> None:
    """Writes a model without its weights, for ``reopen``."""
    folder.mkdir(exist_ok=True)
    model.save_companions(folder)
    write_json(folder / "config.json", model.config.to_dict())


def reopen(folder: Path, padding: str) -> FlaxSpeechEncoderDecoderModel:
    """Returns a model of which only the shapes of the parameters are known."""
    fields = read_json(folder / "config.json")
    config = SpeechEncoderDecoderConfig.from_dict(fields)
    module = build(config, padding)
    return FlaxSpeechEncoderDecoderModel(
        config,
        module=module,
        params=unflatten_dict(abstract_params(module), sep="/"),
        generation_config=resolve_generation(folder, fields),
        processor=Processor.load(folder, folder),
    )


def step_settings(config: TrainConfig, model: FlaxSpeechEncoderDecoderModel) -> StepSettings:
    """Returns the settings of the step, with the token ids of the model."""
    loss = config.loss
    if loss.ctc_weight and loss.ctc_blank is None:
        blank = model.config.pad_token_id
        silent = silent_tokens(model.processor.tokenizer, blank)
        loss = replace(loss, ctc_blank=blank, ctc_silent=silent)
    return StepSettings(
        pad_token_id=model.config.pad_token_id,
        decoder_start_token_id=model.config.decoder_start_token_id,
        loss=loss,
        optimizer=config.optimizer,
        accumulate=config.accumulate,
        precision=config.precision,
        average=config.average,
    )


@dataclass(frozen=True)
class _Data:
    """From manifests to plans and loaders that fit the model and the devices."""

    config: TrainConfig
    model: FlaxSpeechEncoderDecoderModel
    settings: StepSettings
    mesh: Mesh

    def labels(self, store: Store) -> Labels:
        processor = self.model.processor
        return Labels.of(encode_texts(store.texts, processor.tokenizer, self.model.config))

    def plan(self, store: Store, labels: Labels) -> Any:
        loss = self.settings.loss
        return plan_training(
            store,
            labels,
            self.config.data,
            math.lcm(self._devices * self.settings.accumulate, self.config.data.row_multiple),
            self._fixed_samples,
            self._states if loss.ctc_weight else None,
            loss.ctc_silent,
        )

    def evaluation(self, path: str) -> EvaluationSet:
        store = Store.open(path, self._rate)
        labels = self.labels(store)
        plan = plan_evaluation(store, labels, self.config.data, self._devices, self._fixed_samples)
        references = dict(zip(store.ids, store.texts, strict=True))
        return EvaluationSet(lambda: self.loader(store, labels, plan, 0), references)

    def loader(self, store: Store, labels: Labels, plan: Plan, start: int) -> Loader:
        rows = plan[start].shape.rows
        mine = local_rows(self.mesh, rows)
        size = mine.stop - mine.start
        part = Part(mine.start // size, rows // size)
        features: Any = self.model.processor.features
        data = self.config.data
        return Loader(store, labels, features, plan, start, part, data.workers, data.prefetch)

    @property
    def _rate(self) -> int:
        features: Any = self.model.processor.features
        return features.sampling_rate

    @property
    def _devices(self) -> int:
        return self.mesh.shape[DATA] * self.mesh.shape[FSDP]

    @property
    def _fixed_samples(self) -> int | None:
        features: Any = self.model.processor.features
        return features.fixed_samples

    @property
    def _states(self) -> FrameCount | None:
        """Counts the encoder's states of clips; None if it has the same number of any clip."""
        features: Any = self.model.processor.features
        encoder = self.model.module.encoder.config
        if features.fixed_samples is not None:
            return None
        return lambda samples: encoder.frames(features.positions(samples))
