"""The formulations of the costly operations, side by side, to re-check a choice on other hardware.

    python benchmarks/kernels.py [SET ...] [--rounds 7] [--json kernels.json]

Every set computes one thing in several ways; the first way is what the package does. Results are
compared before anything is timed; ways are timed in turn (A, B, C, A, B, C, ...). The table gives
the median, the range, and the time over that of the package's own way, round by round.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from speech_ed_flax.generation.ranking import largest
from speech_ed_flax.layers import attend, linear
from speech_ed_flax.layers.convolve import convolve
from speech_ed_flax.layers.depthwise import depthwise
from speech_ed_flax.layers.dropout import Dropout
from speech_ed_flax.layers.feed_forward import exact_gelu
from speech_ed_flax.layers.plane import PlaneConvolution
from speech_ed_flax.memory import keep_memory

Ways = dict[str, Callable]
"""Names of formulations and functions of the set's arguments."""

_NUMBERS = np.random.default_rng(0)


def draw(*shape: int, dtype: str = "float32") -> jax.Array:
    """Returns random numbers of a reasonable size."""
    return jnp.asarray(_NUMBERS.standard_normal(shape) * shape[-1] ** -0.25, dtype)


def rows(count: int, inputs: int, outputs: int) -> tuple[Ways, tuple]:
    """Products of a few rows with a weight: one step of decoding."""
    ways = {
        "project": lambda x, weight, kernel: linear.project(x, weight),
        "weights first": lambda x, weight, kernel: linear._weights_first(x, weight),
        "rows first": lambda x, weight, kernel: linear._rows_first(x, weight),
        "rows first, [inputs, outputs]": lambda x, weight, kernel: x @ kernel,
    }
    weight = draw(outputs, inputs)
    return ways, (draw(count, inputs), weight, jnp.array(weight.T))


def attention(batch: int, heads: int, target: int, source: int) -> tuple[Ways, tuple]:
    """Attention: all scores at once, a head at a time, and jax.nn's."""

    def of_jax(query, key, value):
        parts = (part.swapaxes(1, 2) for part in (query, key, value))
        return jax.nn.dot_product_attention(*parts, scale=1.0).swapaxes(1, 2)

    ways = {
        "attend": attend.attend,
        "all scores at once": lambda q, k, v: attend._whole(q, k, v, None, None),
        "a head at a time": lambda q, k, v: attend._head_by_head(q, k, v, None, None),
        "jax.nn.dot_product_attention": of_jax,
    }
    key = (batch, heads, source, 64)
    return ways, (draw(batch, heads, target, 64), draw(*key), draw(*key))


def library(x: jax.Array, kernel: jax.Array, stride: int, padding: int, groups: int) -> jax.Array:
    """Convolves as ``lax`` has it, for every backend."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride,),
        [(padding, padding)],
        feature_group_count=groups,
        dimension_numbers=("NWC", "WIO", "NWC"),
    )


def samples(batch: int, seconds: int, width: int) -> tuple[Ways, tuple]:
    """The first convolution of the feature encoder: one channel, 10 samples, every 5."""
    ways = {
        "convolve": lambda x, kernel: convolve(x, kernel, 5),
        "lax": lambda x, kernel: library(x, kernel, 5, 0, 1),
    }
    return ways, (draw(batch, 16000 * seconds, 1), draw(10, 1, width))


def frames(batch: int, time: int, width: int, size: int) -> tuple[Ways, tuple]:
    """A stride-2 convolution of the feature encoder."""

    def patches(x, kernel):
        """Unfolds what the kernel sees; pairs of frames are one row."""
        half = (time - size) // 2 + 1
        x = jnp.pad(x, ((0, 0), (0, time % 2), (0, 0))).reshape(batch, -1, 2 * width)
        parts = [x[:, :half], x[:, 1 : half + 1, :width]][: size - 1]
        return jnp.concatenate(parts, -1) @ kernel.reshape(-1, width)

    ways = {"convolve (lax)": lambda x, kernel: convolve(x, kernel, 2), "patches": patches}
    return ways, (draw(batch, time, width), draw(size, width, width))


def positions(batch: int, time: int, width: int) -> tuple[Ways, tuple]:
    """The positional convolution: 128 frames, 16 groups."""

    def side_by_side(x, kernel):
        parts = zip(jnp.split(x, 16, -1), jnp.split(kernel, 16, -1), strict=True)
        return jnp.concatenate([library(*part, 1, 64, 1) for part in parts], -1)

    ways = {
        "convolve": lambda x, kernel: convolve(x, kernel, padding=64, groups=16),
        "side by side": side_by_side,
        "lax, grouped": lambda x, kernel: library(x, kernel, 1, 64, 16),
    }
    return ways, (draw(batch, time, width), draw(128, width // 16, width))


def channels(batch: int, time: int, width: int, size: int) -> tuple[Ways, tuple]:
    """The depthwise convolution of a conformer layer."""
    same = (size // 2, size // 2)
    ways = {
        "depthwise": lambda x, kernel: depthwise(x, kernel, same),
        "lax, grouped": lambda x, kernel: library(x, kernel, 1, size // 2, width),
    }
    return ways, (draw(batch, time, width), draw(size, 1, width))


def plane(frames: int, mels: int, width: int) -> tuple[Ways, tuple]:
    """A depthwise convolution of Parakeet's, which halves frames and mels."""
    convolution = PlaneConvolution(width, 3, 2)

    def of_library(x, kernel):
        return lax.conv_general_dilated(
            x,
            kernel,
            (2, 2),
            [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "WHIO", "NHWC"),
            feature_group_count=width,
        )

    def of_taps(x, kernel):
        params = {"kernel": kernel, "bias": jnp.zeros(width)}
        return convolution.apply({"params": params}, x)

    ways = {"plane": of_taps, "lax": of_library}
    return ways, (draw(1, frames, mels, width), draw(3, 3, 1, width))


def backward(make: Callable, of: tuple[int, ...], *sizes: int) -> tuple[Ways, tuple]:
    """The gradients of arguments ``of`` of the ways that ``make`` returns."""
    ways, arguments = make(*sizes)

    def gradient(way):
        return jax.grad(lambda *given: jnp.square(way(*given)).sum(), of)

    return {name: gradient(way) for name, way in ways.items()}, arguments


def dropout(*shape: int) -> tuple[Ways, tuple]:
    """Dropout with its gradient: different draws, and so the means of them are compared."""

    def mean_of(module):
        def way(x):
            drop = partial(module.apply, {}, rngs={"dropout": jax.random.key(0)})
            kept, gradient = jax.vjp(drop, x)
            return jnp.stack([kept.mean(), gradient(x)[0].mean()]) / 100

        return way

    ways = {
        "Dropout": mean_of(Dropout(0.1)),
        "flax.linen.Dropout": mean_of(nn.Dropout(0.1, deterministic=False)),
    }
    return ways, (draw(*shape) + 1,)


def top_k(count: int, choices: int) -> tuple[Ways, tuple]:
    """The ten best of the continuations of five hypotheses."""

    def chunked(scores):
        padded = jnp.pad(scores, ((0, 0), (0, -choices % 128)), constant_values=-jnp.inf)
        chunks = padded.reshape(count, -1, 128)
        _, best = lax.optimization_barrier(lax.top_k(chunks.max(-1), 10))
        inside = jnp.take_along_axis(chunks, best[:, :, None], 1).reshape(count, -1)
        values, at = lax.optimization_barrier(lax.top_k(inside, 10))
        return values, jnp.take_along_axis(best, at // 128, 1) * 128 + at % 128

    ways = {
        "top_k behind a barrier": lambda scores: largest(scores * 2, 10),
        "top_k, sliced": lambda scores: tuple(a[:, :10] for a in lax.top_k(scores * 2, 11)),
        "maxima of chunks first": lambda scores: chunked(scores * 2),
        "full sort": lambda scores: tuple(
            a[:, ::-1][:, :10]
            for a in lax.sort_key_val(
                scores * 2, jnp.broadcast_to(jnp.arange(choices), scores.shape)
            )
        ),
    }
    return ways, (draw(count, choices),)


def greedy(count: int, choices: int) -> tuple[Ways, tuple]:
    """The first best token."""

    def by_maximum(scores):
        best = scores.max(-1, keepdims=True)
        return jnp.where(scores == best, jnp.arange(choices), choices).min(-1)

    return {"argmax": partial(jnp.argmax, axis=-1), "maximum, then first": by_maximum}, (
        draw(count, choices),
    )


def gelu(frames: int) -> tuple[Ways, tuple]:
    """The exact GELU."""
    return {
        "erf": exact_gelu,
        "jax.nn.gelu (erfc)": partial(jax.nn.gelu, approximate=False),
    }, (draw(frames, 512),)


SETS: dict[str, list[tuple[str, Callable]]] = {
    "rows": [
        (f"{count} x {inputs} -> {outputs}", partial(rows, count, inputs, outputs))
        for count in (1, 5, 20, 64, 128)
        for inputs, outputs in ((768, 768), (768, 3072), (3072, 768), (768, 50265))
    ],
    "attention": [
        ("10 s waveform", partial(attention, 1, 12, 499, 499)),
        ("30 s of Whisper tiny", partial(attention, 1, 6, 1500, 1500)),
        ("the same, batch 4", partial(attention, 4, 6, 1500, 1500)),
        ("a step of 5 beams", partial(attention, 1, 12, 5, 499)),
    ],
    "convolution": [
        ("samples, 2 x 5 s", partial(samples, 2, 5, 512)),
        ("the same, backward", partial(backward, samples, (1,), 2, 5, 512)),
        ("samples, 8 x 3 s, width 128", partial(samples, 8, 3, 128)),
        ("the same, backward", partial(backward, samples, (1,), 8, 3, 128)),
        ("2 x 7,999 frames out, kernel 3", partial(frames, 2, 15999, 512, 3)),
        ("the same, backward", partial(backward, frames, (0, 1), 2, 15999, 512, 3)),
        ("8 x 4,799 frames out, kernel 3, width 128", partial(frames, 8, 9599, 128, 3)),
        ("the same, backward", partial(backward, frames, (0, 1), 8, 9599, 128, 3)),
        ("2 x 499 frames out, kernel 2", partial(frames, 2, 999, 512, 2)),
        ("the same, backward", partial(backward, frames, (0, 1), 2, 999, 512, 2)),
    ],
    "positions": [
        ("499 frames", partial(positions, 1, 499, 768)),
        ("the same, backward", partial(backward, positions, (0, 1), 1, 499, 768)),
        ("16 x 149 frames, width 192", partial(positions, 16, 149, 192)),
        ("the same, backward", partial(backward, positions, (0, 1), 16, 149, 192)),
    ],
    "depthwise": [
        ("2 x 499 frames, kernel 31", partial(channels, 2, 499, 1024, 31)),
        ("the same, backward", partial(backward, channels, (0, 1), 2, 499, 1024, 31)),
        ("2 x 125 frames, kernel 9", partial(channels, 2, 125, 1024, 9)),
        ("the same, backward", partial(backward, channels, (0, 1), 2, 125, 1024, 9)),
    ],
    "plane": [
        ("10 s, 256 channels", partial(plane, 500, 40, 256)),
        ("the same, backward", partial(backward, plane, (0, 1), 500, 40, 256)),
    ],
    "dropout": [
        ("feed-forward, 2 x 5 s", partial(dropout, 2, 249, 3072)),
        ("attention, 2 x 5 s", partial(dropout, 2, 12, 249, 249)),
    ],
    "logits": [
        ("10 of 5 x 50,265", partial(top_k, 1, 5 * 50265)),
        ("10 of 5 x 50,265, 4 utterances", partial(top_k, 4, 5 * 50265)),
        ("1 of 50,265", partial(greedy, 1, 50265)),
        ("1 of 50,265, 16 rows", partial(greedy, 16, 50265)),
    ],
    "gelu": [("15,999 frames", partial(gelu, 15999))],
}


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call takes until its results are there."""
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def measure(ways: Ways, arguments: tuple, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of every way in every round.

    Raises:
        AssertionError: if two ways do not compute the same.
    """
    compiled = {name: jax.jit(way) for name, way in ways.items()}
    results = [jax.tree.leaves(way(*arguments)) for way in compiled.values()]
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            largest_difference = jnp.abs(expected - found).max()
            assert largest_difference <= 1e-3 * (1 + jnp.abs(expected).max()), largest_difference
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in compiled.items():
            times[name].append(seconds(lambda way=way: way(*arguments)))
    return times


def lines(case: str, times: dict[str, list[float]]) -> list[str]:
    """Returns Markdown rows."""
    first = np.array(next(iter(times.values())))
    rendered = []
    for name, values in times.items():
        ms, ratio = np.array(values) * 1e3, np.median(np.array(values) / first)
        spread = f"{ms.min():.2f} to {ms.max():.2f}"
        rendered.append(f"| {case} | {name} | {np.median(ms):.2f} | {spread} | {ratio:.2f} |")
    return rendered


def main() -> None:
    """Runs the sets that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep-memory", action="store_true", help="as the command line does")
    options = parser.parse_args()
    if options.keep_memory:
        keep_memory()
    recorded: dict[str, dict] = {}
    for name in options.sets or SETS:
        print(
            f"\n### {name}\n\n| case | way | median ms | range | / first |\n|---|---|---|---|---|"
        )
        for case, make in SETS[name]:
            times = measure(*make(), options.rounds)
            recorded.setdefault(name, {})[case] = times
            print("\n".join(lines(case, times)), flush=True)
    if options.json:
        device = jax.devices()[0].device_kind
        found = {"jax": jax.__version__, "device": device, "seconds": recorded}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
