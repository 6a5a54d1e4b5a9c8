"""A training, interrupted or not, from a configuration to a model that has learned."""

import hashlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache
from tones import PITCHES, training, write_tones

from speech_ed_flax import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.audio.features import FilterBankFeatures
from speech_ed_flax.settings import make_settings
from speech_ed_flax.training import evaluation, loop
from speech_ed_flax.training.checkpoints import Checkpoints
from speech_ed_flax.training.config import TrainConfig
from speech_ed_flax.training.loop import Ending, train


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tones")
    written = training(write_tones(folder, 48), write_tones(folder, 12, seed=1))
    return make_settings(TrainConfig, written, "tones.yaml")


@pytest.fixture(scope="module", autouse=True)
def kept_programs(tmp_path_factory):
    """Keeps compiled programs, as the command does: every resumed training compiles the same."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("programs")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)
    reset_cache()  # which would be used by all tests to come


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "whole"
    assert train(config, folder) is Ending.FINISHED
    return folder


def digest(folder):
    """Returns the SHA-256 of everything that the last checkpoint of a training holds."""
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    checkpoint = folder / "checkpoints" / str(step)
    kept = loop_state(checkpoint)
    found = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    found.update((checkpoint / "progress" / "progress.json").read_bytes())
    return step, found.hexdigest()


def loop_state(checkpoint):
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as reader:
        return reader.restore(checkpoint / "state")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_training_ends_with_a_model_that_transcribes(config, finished):
    model = FlaxSpeechEncoderDecoderModel.from_pretrained(finished / "best")
    recordings = sorted(Path(config.evaluate["dev"]).parent.glob("1-*.wav"))
    heard = model.transcribe(recordings, max_new_tokens=6)
    assert [one.error for one in heard] == [None] * len(recordings)
    assert {word for one in heard for word in one.text.split()} <= set(PITCHES)


def test_a_training_tells_what_it_does(finished):
    written = lines(finished / "metrics.jsonl")
    reports = [line for line in written if "train/loss" in line]
    due = {*range(20, 301, 20), *range(25, 301, 25)}  # every 20 steps, and with each checkpoint
    assert [line["step"] for line in reports] == sorted(due)
    assert reports[-1]["train/loss"] < reports[0]["train/loss"] / 2
    assert all(0 <= line["speed/padding_percent"] < 100 for line in reports)
    judged = [line for line in written if "dev/wer" in line]
    assert [line["step"] for line in judged] == [60, 120, 180, 240, 300]
    assert all(0 < line["dev/loss"] < 4 for line in judged)
    shown = lines(finished / "predictions.jsonl")
    assert shown[-1]["alignment"][0].startswith("REF: ")
    assert json.loads((finished / "versions.json").read_text())["jax"] == jax.__version__


class Interruptions:
    """Sends SIGTERM to this process when something has happened so many times."""

    def __init__(self, monkeypatch, planned):
        self._left = [list(one) for one in planned]
        self.seen = 0
        for owner, name, event in (
            (loop.Meter, "add", "step"),
            (evaluation.Evaluator, "_batch", "evaluation"),
            (Checkpoints, "save", "saving"),
        ):
            monkeypatch.setattr(owner, name, self._counted(getattr(owner, name), event))

    def _counted(self, method, event):
        def counted(*arguments, **named):
            result = method(*arguments, **named)
            if self._left and self._left[0][0] == event:
                self._left[0][1] -= 1
                if self._left[0][1] == 0:
                    self._left.pop(0)
                    self.seen += 1
                    os.kill(os.getpid(), signal.SIGTERM)
            return result

        return counted


def test_ten_interruptions_change_no_bit_of_the_result(config, finished, tmp_path, monkeypatch):
    planned = [
        ("step", 7),
        ("saving", 2),
        ("step", 40),
        ("evaluation", 1),
        ("step", 1),
        ("saving", 1),
        ("evaluation", 2),
        ("step", 55),
        ("evaluation", 1),
        ("saving", 3),
    ]
    interruptions = Interruptions(monkeypatch, planned)
    endings = []
    while not endings or endings[-1] is not Ending.FINISHED:
        endings.append(train(config, tmp_path / "parts"))
    assert interruptions.seen == 10
    assert endings[:-1] == [Ending.PREEMPTED] * (len(endings) - 1)
    assert len(endings) > 8, "a signal between two trainings ends neither"
    assert digest(tmp_path / "parts") == digest(finished)
    for name in ("metrics.jsonl", "predictions.jsonl"):
        parts, whole = lines(tmp_path / "parts" / name), lines(finished / name)
        assert [line for line in parts if "train/loss" not in line] == [
            line for line in whole if "train/loss" not in line
        ]


def test_an_encoder_of_mel_frames_trains_and_transcribes(config, tmp_path):
    encoder = {
        "model_type": "speech_to_text",
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_ffn_dim": 32,
        "conv_channels": 16,
        "num_conv_layers": 1,
        "conv_kernel_sizes": [5],
        "input_feat_per_channel": 20,
    }
    hears_frames = replace(
        config,
        model=replace(config.model, encoder=encoder),
        optimizer=replace(config.optimizer, warmup_steps=2, steps=30),
        evaluation=replace(config.evaluation, every=30),
    )
    assert train(hears_frames, tmp_path / "run") is Ending.FINISHED
    reports = [one for one in lines(tmp_path / "run" / "metrics.jsonl") if "train/loss" in one]
    assert reports[-1]["train/loss"] < reports[0]["train/loss"]
    trained = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path / "run" / "best")
    assert trained.processor.features == FilterBankFeatures(num_mel_bins=20)
    heard = trained.transcribe(Path(config.evaluate["dev"]).parent / "1-0.wav", max_new_tokens=6)
    assert heard.error is None
    assert set(heard.text.split()) <= set(PITCHES)


def test_a_training_on_other_data_does_not_go_on(config, finished, tmp_path):
    other = replace(config, train=(str(write_tones(tmp_path, 20, seed=2)),))
    with pytest.raises(ValueError, match="was trained on other batches"):
        train(other, finished)


def test_a_training_of_another_model_does_not_go_on(config, finished):
    encoder = config.model.encoder | {"hidden_dropout": 0.25}
    other = replace(config, model=replace(config.model, encoder=encoder))
    with pytest.raises(ValueError, match=r"model\.encoder is not what the training began with"):
        train(other, finished)


def test_a_training_stops_when_it_gets_no_better_and_shows_what_it_did(config, tmp_path):
    patient = replace(config.evaluation, every=5, patience=2)
    slow = replace(config.optimizer, learning_rate=0.0)
    log = replace(config.log, tensorboard=True)
    stopping = replace(config, evaluation=patient, optimizer=slow, log=log, profile="2:3")
    assert train(stopping, tmp_path / "run") is Ending.STOPPED_EARLY
    judged = [line for line in lines(tmp_path / "run" / "metrics.jsonl") if "dev/wer" in line]
    assert [line["step"] for line in judged] == [5, 10, 15]
    shown = tmp_path / "run" / "tensorboard"
    assert list(shown.glob("events.out.tfevents.*"))
    assert list(shown.glob("plugins/profile/*/*")), "steps 2 and 3 were to be traced"


def test_steps_that_are_not_finite_are_skipped_and_their_recordings_named(config, tmp_path):
    wild = replace(config.optimizer, learning_rate=1e30, warmup_steps=0, steps=4)
    train(replace(config, optimizer=wild), tmp_path / "run")
    skipped = lines(tmp_path / "run" / "skipped.jsonl")
    assert [line["step"] for line in skipped] == [2, 3, 4]
    assert all(name.endswith(".wav") for line in skipped for name in line["ids"])
    (report,) = (line for line in lines(tmp_path / "run" / "metrics.jsonl") if "train/loss" in line)
    assert report["train/skipped"] == 3
    assert 0 < report["train/loss"] < 10, "the mean of the steps that count"
