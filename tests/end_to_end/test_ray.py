"""``transcribe --engine ray``: what one process writes, by two actors, one of which is killed."""

import os
import subprocess
import sys

import pytest
from guesser import guesser
from sounds import record

from speech_ed_flax.cli import main

RECORDINGS = 8
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")
}

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install '.[ray]'")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with a model, recordings, one that is none, and what one process writes of them."""
    folder = tmp_path_factory.mktemp("archive")
    guesser().save_pretrained(folder / "model")
    for number in range(RECORDINGS):
        record(folder / "in" / f"{number}.wav", 0.5 + number % 3)
    (folder / "in" / "bad.wav").write_text("no sound")
    assert main(command(folder, "alone")) == 3
    return folder


def command(folder, out, *more, model="model"):
    given = ["transcribe", folder / "in", "-m", folder / model, "-o", folder / out]
    fixed = ["--batch-size", "1", "--log-prob-threshold", "-9"]
    return list(map(str, [*given, *fixed, *more]))


def on_cluster(folder, out, *more, model="model", **environment):
    run = [sys.executable, "-m", "speech_ed_flax", *command(folder, out, *more, model=model)]
    run += ["--engine", "ray", "--actors", "2"]
    return subprocess.run(run, env=ENVIRONMENT | environment, capture_output=True, text=True)


def texts(folder, out):
    return {path.name: path.read_text() for path in (folder / out).iterdir()}


def test_two_actors_write_what_one_process_does_and_a_second_run_what_is_missing(archive):
    ran = on_cluster(archive, "shared")
    assert ran.returncode == 3, ran.stderr
    assert f"{RECORDINGS} transcribed, 1 failed" in ran.stderr
    assert ran.stderr.count("bad.wav: not a sound file") == 1
    assert texts(archive, "shared") == texts(archive, "alone")

    (archive / "shared" / "3.txt").unlink()
    ran = on_cluster(archive, "shared", "--skip-existing")
    assert f"1 transcribed, {RECORDINGS - 1} kept, 1 failed" in ran.stderr
    assert texts(archive, "shared") == texts(archive, "alone")


def test_a_killed_actor_loses_nothing(archive):
    """The killer is a detector: what an actor listens with, in an installed package."""
    package = archive / "killer"
    (package / "killer-1.dist-info").mkdir(parents=True)
    (package / "killer-1.dist-info" / "METADATA").write_text("Name: killer\nVersion: 1\n")
    entry = "[speech_ed_flax.detectors]\nkiller = killer:Killer\n"
    (package / "killer-1.dist-info" / "entry_points.txt").write_text(entry)
    (package / "killer.py").write_text(KILLER)
    mark = archive / "killed"
    path = os.pathsep.join([str(package), os.environ.get("PYTHONPATH", "")])
    more = ("--detector", "killer", "--workers", "0")
    ran = on_cluster(archive, "survived", *more, PYTHONPATH=path, MARK=str(mark))
    assert ran.returncode == 3, ran.stderr
    assert mark.exists()
    assert texts(archive, "survived") == texts(archive, "alone")


KILLER = """
import os, pathlib, signal
from speech_ed_flax.audio.speech import EnergyDetector

class Killer(EnergyDetector):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        try:
            pathlib.Path(os.environ["MARK"]).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_model_that_cannot_be_used_is_one_sentence(archive):
    (archive / "empty").mkdir()
    ran = on_cluster(archive, "none", model="empty")
    assert ran.returncode == 4
    assert ran.stderr.splitlines()[-1].startswith(f"error: {archive}/empty")
