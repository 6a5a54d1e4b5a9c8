"""From nothing to a transcript, in fresh processes that take turns."""

import tempfile
import time
from pathlib import Path
from typing import Any

from contenders.crew import Crew, say
from contenders.process import ContenderError
from contenders.workloads import COLD_START, ENTRIES

_CALLS = ("first transcript", "second transcript")


def cold_starts(
    crew: Crew, material: dict[str, str], rounds: int, scratch: Path
) -> list[dict[str, Any]]:
    """Returns by way to start the seconds of each stage, of each round.

    Args:
        crew: starts the contenders of ``COLD_START``.
        material: the model and the sound.
        rounds: fresh processes of each.
        scratch: folder for JAX's cache of compiled programs, which starts empty.
    """
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": cache,
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        ways: dict[str, tuple[str, dict[str, str]]] = {
            name: (name, {}) for name in COLD_START.contenders
        }
        ways["ours, warm cache of compiled programs"] = ("ours", kept)
        say("filling the cache of compiled programs")
        _start(crew, "ours", kept, material)
        found: dict[str, list[dict[str, float]]] = {title: [] for title in ways}
        for turn in range(rounds):
            for title, (name, environment) in ways.items():
                stages = _start(crew, name, environment, material)
                if stages:
                    say(f"round {turn + 1} of {rounds}, {title}: {sum(stages.values()):.1f} s")
                    found[title].append(stages)
    return [{"name": title, "rounds": times} for title, times in found.items() if times]


def _start(
    crew: Crew, name: str, environment: dict[str, str], material: dict[str, str]
) -> dict[str, float]:
    """Returns the seconds of each stage of one fresh process; nothing if it does not get there."""
    start = time.perf_counter()
    process = crew.start(name, ENTRIES[name], environment)
    if process is None:
        return {}
    stages = {"import": time.perf_counter() - start}
    request = material | {"task": COLD_START.task, "settings": COLD_START.settings}
    try:
        stages |= {"load": process.ask("load", **request)["seconds"]}
        stages |= {stage: process.ask("run")["seconds"] for stage in _CALLS}
    except ContenderError as error:
        say(f"{name} is left out: {error}.")
        return {}
    finally:
        process.close()
    return stages
