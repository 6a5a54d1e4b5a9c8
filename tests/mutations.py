"""Damages files of sound by number, and hears them in a process that may die of it."""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sounds import CODECS, CONTAINERS, encode, speech_like

from speech_ed_flax.audio.files import stream_audio
from speech_ed_flax.errors import AudioError

MOST_SECONDS, MOST_MEGABYTES = 5, 300
_ADDRESS_SPACE = 4 * 2**30  # bytes: the machine survives what asks for more


def originals() -> dict[str, bytes]:
    """Returns a whole file of every format, two seconds of stereo, by its name."""
    sound = np.stack([speech_like(2.0, 16_000)] * 2, axis=1)
    files = {name: encode(sound, **form) for name, form in (CODECS | CONTAINERS).items()}
    try:
        import films
    except ModuleNotFoundError:
        return files
    return files | {kind: films.encode(kind) for kind in films.CODECS}


# --- damage ---------------------------------------------------------------------------------------


def mutated(content: bytes, seed: int) -> bytes:
    """Returns a file with one to three kinds of damage, always the same for a seed."""
    random = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(random.integers(1, 4)):
        data = _DAMAGES[random.integers(len(_DAMAGES))](data, random)
    # Ogg pages with a wrong sum are passed over: half of them get the right one.
    return _with_right_sums(bytes(data)) if random.integers(2) else bytes(data)


def _block(data: bytearray, random: np.random.Generator) -> slice:
    start = int(random.integers(len(data) + 1))
    return slice(start, start + int(2 ** random.uniform(0, 13)))


def _flip(data: bytearray, random: np.random.Generator) -> bytearray:
    for at in random.integers(len(data) or 1, size=int(2 ** random.uniform(0, 6))):
        data[at : at + 1] = bytes(byte ^ random.integers(1, 256) for byte in data[at : at + 1])
    return data


def _truncate(data: bytearray, random: np.random.Generator) -> bytearray:
    return data[: random.integers(len(data) + 1)]


def _insert(data: bytearray, random: np.random.Generator) -> bytearray:
    block = _block(data, random)
    data[block.start : block.start] = random.bytes(block.stop - block.start)
    return data


def _duplicate(data: bytearray, random: np.random.Generator) -> bytearray:
    block = data[_block(data, random)]
    at = random.integers(len(data) + 1)
    data[at:at] = block
    return data


def _zero(data: bytearray, random: np.random.Generator) -> bytearray:
    block = _block(data, random)
    data[block] = bytes(len(data[block]))
    return data


def _remove(data: bytearray, random: np.random.Generator) -> bytearray:
    del data[_block(data, random)]
    return data


def _lie(data: bytearray, random: np.random.Generator) -> bytearray:
    """Puts a number of one to eight bytes where headers have lengths, rates and channels."""
    size = int(random.choice([1, 2, 4, 4, 8]))
    most = 2 ** (8 * size)
    number = int(random.choice(np.array([0, 1, 7, most // 2 - 1, most // 2, most - 1], object)))
    at = int(random.integers(int(2 ** random.uniform(3, 9))))
    if at < len(data):
        data[at : at + size] = number.to_bytes(size, random.choice(["little", "big"]))
    return data


_DAMAGES = (_flip, _truncate, _insert, _duplicate, _zero, _remove, _lie, _lie, _lie)


def _with_right_sums(data: bytes) -> bytes:
    pages = data.split(b"OggS")
    for number, page in enumerate(pages[1:], 1):
        if len(page) > 22:
            whole = b"OggS" + page[:18] + bytes(4) + page[22:]
            pages[number] = whole[4:22] + _ogg_sum(whole).to_bytes(4, "little") + whole[26:]
    return b"OggS".join(pages)


def _ogg_sum(page: bytes) -> int:
    """Returns the CRC of an Ogg page, RFC 3533 section 6."""
    crc = 0
    for byte in page:
        crc = crc << 8 & 0xFFFFFFFF ^ _CRC[crc >> 24 ^ byte]
    return crc


def _remainder(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = value << 1 ^ (0x104C11DB7 if value >> 31 else 0)
    return value


_CRC = [_remainder(byte) for byte in range(256)]

# --- hearing it -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What became of a file: ``outcome`` is "decoded", the class of an error, or else a fault."""

    format: str
    seed: int
    outcome: str
    message: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0  # the most of the process so far

    @property
    def fault(self) -> bool:
        """Whether this must not happen."""
        return " " in self.outcome or self.megabytes > MOST_MEGABYTES


def hear_all(originals: dict[str, bytes], seeds: Sequence[int]) -> Iterator[Found]:
    """Yields what becomes of every mutation of every original; who kills its process is named."""
    tasks = [(name, seed) for seed in seeds for name in originals]
    with tempfile.TemporaryDirectory() as folder:
        for name, content in originals.items():
            Path(folder, name).write_bytes(content)
        while tasks:
            command = [sys.executable, __file__, folder]
            lines = "".join(f"{name} {seed}\n" for name, seed in tasks)
            ran = subprocess.run(command, input=lines, capture_output=True, text=True)
            found = [Found(**json.loads(line)) for line in ran.stdout.splitlines()]
            yield from found
            tasks = tasks[len(found) :]
            if tasks:
                how = signal.Signals(-ran.returncode).name if ran.returncode < 0 else "exit"
                yield Found(*tasks.pop(0), outcome=f"killed by {how}", message=ran.stderr[-500:])


def _hear(name: str, content: bytes, seed: int, path: Path) -> Found:
    path.write_bytes(mutated(content, seed))
    outcome, message, started = "decoded", "", time.perf_counter()
    try:
        samples = 0
        for block in stream_audio(path):
            assert block.dtype == np.float32
            assert block.ndim == 1
            assert np.isfinite(block).all()
            samples += len(block)
        message = str(samples)
    except AudioError as error:
        outcome, message = type(error).__name__, str(error)
        if not message.startswith(f"{path}: "):
            outcome = "nameless error"
    except BaseException as error:
        outcome, message = f"untyped {type(error).__name__}", str(error)
    return Found(name, seed, outcome, message, time.perf_counter() - started, peak_megabytes())


def peak_megabytes() -> float:
    """Returns the most memory of this process so far; ``getrusage`` would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _child(folder: Path) -> None:
    """Hears what is asked for on stdin; the system kills it where it takes too long."""
    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    results = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libsndfile prints what it finds damaged in ALAC
    for line in sys.stdin:
        name, seed = line.split()
        content = (folder / name).read_bytes()
        signal.alarm(MOST_SECONDS)
        found = _hear(name, content, int(seed), folder / f"mutated.{name}")
        signal.alarm(0)
        print(json.dumps(asdict(found)), file=results, flush=True)


def table(found: Sequence[Found]) -> str:
    """Returns a line for each format: what became of its files, the slowest, the most memory."""
    lines = []
    for name in dict.fromkeys(one.format for one in found):
        mine = [one for one in found if one.format == name]
        slowest = max(one.seconds for one in mine)
        most = max(one.megabytes for one in mine)
        outcomes = Counter(one.outcome for one in mine).most_common()
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes)
        lines.append(f"{name:8} {len(mine)}: {counts}; {slowest:.2f} s, {most:.0f} MB at most")
    return "\n".join(lines)


if __name__ == "__main__":
    _child(Path(sys.argv[1]))
