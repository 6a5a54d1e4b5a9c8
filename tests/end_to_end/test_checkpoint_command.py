"""What a training has saved, through the command line."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tones import DECODER, ENCODER, PITCHES

from speech_ed_flax.cli import main
from speech_ed_flax.creation import create
from speech_ed_flax.data.tokenizer import train_tokenizer
from speech_ed_flax.pretrained import FlaxSpeechEncoderDecoderModel
from speech_ed_flax.training import state as states
from speech_ed_flax.training.checkpoints import Checkpoints
from speech_ed_flax.training.materials import keep
from speech_ed_flax.training.settings import LossSettings, StepSettings

WERS = {10: 0.5, 20: 0.25, 30: float("nan"), 40: None}


@pytest.fixture(scope="module")
def model():
    return create(ENCODER, DECODER, train_tokenizer(PITCHES, "word"))


def at_step(state, step):
    """Returns the state with parameters that tell the step, and an average that tells it too."""
    return state.replace(
        params=jax.tree.map(lambda leaf: leaf + step / 1000, state.params),
        average=jax.tree.map(lambda leaf: leaf - step / 1000, state.params),
    )


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "run"
    folder.mkdir()
    keep(model, folder / "model")
    ids = (model.config.pad_token_id, model.config.decoder_start_token_id)
    settings = StepSettings(*ids, loss=LossSettings(ctc_weight=0.3, ctc_blank=0), average=0.9)
    state = states.create(model.module, model.params, settings)
    with Checkpoints(folder / "checkpoints", metric="dev/wer", keep_latest=4) as checkpoints:
        for step, wer in WERS.items():
            metrics = None if wer is None else {"dev/wer": wer}
            checkpoints.save(step, at_step(state, step), {"at": step}, metrics)
    return folder


@pytest.fixture
def damaged(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    (folder / "checkpoints" / "30" / "state" / "_METADATA").write_bytes(b"")
    return folder


def command(*words):
    return main(["checkpoint", *map(str, words)])


def params_of(folder):
    loaded = FlaxSpeechEncoderDecoderModel.from_pretrained(folder, dtype=None)
    return flatten_dict(loaded.params, sep="/")


def assert_moved(folder, model, distance):
    """Asserts that the parameters in a folder are those of the model, each so far away."""
    found, meant = params_of(folder), flatten_dict(model.params, sep="/")
    assert found.keys() == meant.keys()
    for name, array in meant.items():
        np.testing.assert_allclose(found[name], array + distance, atol=1e-6, err_msg=name)


def test_ls_tells_metric_soundness_and_which_is_best_and_latest(damaged, capsys):
    assert command("ls", damaged, "--json") == 0
    rows = {row["step"]: row for row in json.loads(capsys.readouterr().out)}
    assert {step: row["value"] for step, row in rows.items()} == WERS | {30: None}
    assert {row["metric"] for row in rows.values()} == {"dev/wer"}
    assert {step: row["whole"] for step, row in rows.items()} == dict.fromkeys(WERS, True) | {
        30: False
    }
    assert "30/state/_METADATA" in rows[30]["problem"]
    assert [step for step, row in rows.items() if row["best"]] == [20]
    assert [step for step, row in rows.items() if row["latest"]] == [40]
    assert all(row["bytes"] > 10_000 for row in rows.values())

    assert command("ls", damaged, "--no-verify") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["10", "20", "30", "40"]
    assert lines[1].split()[1:3] == ["dev/wer", "0.2500"]
    assert lines[1].endswith("not verified  best")


def test_verify_ends_with_5_and_names_the_damaged_file(damaged, capsys):
    assert command("verify", damaged) == 5
    output = capsys.readouterr()
    assert output.out.count(": whole") == 3
    assert f"error: {damaged}/checkpoints/30/state/_METADATA: it has 0 bytes" in output.err
    assert command("verify", damaged, "30") == 5
    assert command("verify", damaged, "latest") == 0


@pytest.mark.parametrize(
    ("options", "distance"),
    [
        ((), -0.02),
        (("--step", "latest"), -0.04),
        (("--step", "10", "--no-average"), 0.01),
        (("--step", "best", "--average"), -0.02),
    ],
)
def test_export_writes_the_model_of_a_checkpoint(run, model, tmp_path, options, distance):
    assert command("export", run, tmp_path / "model", *options) == 0
    assert_moved(tmp_path / "model", model, distance)


def test_an_exported_model_loads_in_pytorch_with_its_processor(run, tmp_path):
    torch = pytest.importorskip("torch")
    from transformers import AutoFeatureExtractor, AutoTokenizer, SpeechEncoderDecoderModel

    assert command("export", run, tmp_path / "model") == 0
    theirs = SpeechEncoderDecoderModel.from_pretrained(tmp_path / "model").eval()
    audio = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32)
    tokens = np.array([[2, 3, 1]])
    with torch.no_grad():
        meant = theirs(torch.tensor(audio), decoder_input_ids=torch.tensor(tokens)).logits
    ours = FlaxSpeechEncoderDecoderModel.from_pretrained(tmp_path / "model")
    np.testing.assert_allclose(ours(audio, None, tokens).logits, meant, atol=1e-4)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.decode(tokenizer("low mid").input_ids, skip_special_tokens=True) == "low mid"
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "model").sampling_rate == 16_000


def test_a_damaged_checkpoint_is_not_exported(damaged, tmp_path, capsys):
    assert command("export", damaged, tmp_path / "model", "--step", "30") == 4
    assert "30/state/_METADATA" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


def test_average_is_the_mean_of_the_parameters(run, model, tmp_path):
    assert command("average", run, tmp_path / "last", "--last", "2") == 0
    assert_moved(tmp_path / "last", model, 0.035)
    assert command("average", run, tmp_path / "some", "--steps", "10,best,latest") == 0
    assert_moved(tmp_path / "some", model, 0.07 / 3)


def test_diff_tells_how_far_arrays_are_apart(run, capsys):
    assert command("diff", run, 10, 30, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert not report["equal"]
    assert 0 < report["different"] < report["arrays"]
    for row in report["differences"]:
        assert row["name"].split("/")[0] in ("params", "average")
        assert row["largest"] == pytest.approx(0.02, rel=1e-4)
        assert 0 < row["relative"] <= 2
    assert command("diff", run, 10, 30, "--top", "3") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_diff_tells_what_is_equal_bit_for_bit(run, tmp_path, capsys):
    other = shutil.copytree(run, tmp_path / "other")
    assert command("diff", run, "best", 20, "--other", other) == 0
    assert capsys.readouterr().out.endswith("arrays, equal bit for bit\n")


@pytest.mark.parametrize(
    ("words", "outcome", "reason"),
    [
        (("ls", "{tmp}"), 4, "holds no checkpoint; name the folder of a training"),
        (("verify", "{run}", "15"), 4, "no checkpoint of step 15; there are 10, 20, 30, 40"),
        (("verify", "{run}", "worst"), 2, "give a number, best or latest"),
        (("export", "{run}", "{run}"), 2, "it is not empty"),
        (("average", "{run}", "{tmp}/x", "--last", "9"), 2, "holds 4 checkpoints, not the 9"),
        (("average", "{run}", "{tmp}/x", "--last", "1", "--steps", "10"), 2, "exclude each other"),
    ],
)
def test_mistakes_are_answered_with_one_sentence(run, tmp_path, capsys, words, outcome, reason):
    assert command(*(word.format(run=run, tmp=tmp_path) for word in words)) == outcome
    output = capsys.readouterr()
    assert (output.out, output.err.count("\n")) == ("", 1)
    assert reason in output.err
