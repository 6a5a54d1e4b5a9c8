"""Two processes share an archive and are killed: every recording has its text, once."""

import os
import random
import subprocess
import sys

import pytest
from guesser import guesser
from sounds import record

# More of both with, for example, KILLS=20 RECORDINGS=200 pytest tests/end_to_end/test_killed.py
KILLS, RECORDINGS = (int(os.environ.get(n, d)) for n, d in (("KILLS", 1), ("RECORDINGS", 12)))


@pytest.mark.timeout(60 + 60 * KILLS)
def test_killed_and_started_again_two_processes_write_every_text_once(tmp_path):
    guesser().save_pretrained(tmp_path / "model")
    for number in range(RECORDINGS):
        record(tmp_path / "archive" / f"{number}.wav", 0.5 + number % 5)
    out, known = tmp_path / "out", {}
    chance = random.Random(0)

    def start(shard: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "speech_ed_flax", "transcribe", tmp_path / "archive"]
        command += ["-m", tmp_path / "model", "-o", out, "--skip-existing", "-q"]
        command += ["--shard", f"{shard}/2", "--batch-size", "1", "--log-prob-threshold", "-9"]
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache")}
        return subprocess.Popen(list(map(str, command)), env=environment)

    def written() -> dict[str, int]:
        """Returns the results so far, and when each got its present content."""
        return {path.name: path.stat().st_mtime_ns for path in out.glob("[0-9]*.txt")}

    for _ in range(KILLS):
        processes = [start(1), start(2)]
        target = len(known) + chance.randint(1, max(1, RECORDINGS // KILLS // 2))
        while any(process.poll() is None for process in processes) and len(written()) < target:
            pass
        for process in processes:
            process.kill()
            process.wait()
        assert known.items() <= written().items(), "a text was written twice, or lost"
        known = written()
    assert all(process.wait() == 0 for process in [start(1), start(2)])
    assert known.items() <= written().items()
    assert sorted(written()) == sorted(f"{number}.txt" for number in range(RECORDINGS))
    assert all((out / name).read_text().strip() for name in written())
