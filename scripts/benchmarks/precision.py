"""What products of less than full float32 cost in the bookkeeping of a KL divergence.

    python scripts/benchmarks/precision.py            # prints the table
    python scripts/benchmarks/precision.py --write    # also into docs/understand/precision.md

A tanh network of 27-64-64-8, as ant's, whose products take inputs with fewer bits, emulated on any
device: 8 significant bits (bfloat16, a TPU's default), 11 (TF32, an H100's), 24 (float32). A small
change of its weights is measured as a KL, and compared with float64's; and new statistics of
observations are folded into its first layer, which in exact arithmetic moves nothing.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from jtrust.distributions import DiagonalGaussian
from jtrust.networks.running_statistics import RunningStatistics, fold_input

PAGE = Path(__file__).resolve().parents[2] / "docs/understand/precision.md"
BEGIN, END = "<!-- made by scripts/benchmarks/precision.py -->", "<!-- end -->"
SIZES = (27, 64, 64, 8)
KINDS = {"default on a TPU (bfloat16)": 7, "default on an H100 (TF32)": 10, "highest (float32)": 23}
STDS = (1.0, 0.2, 0.05)
WANTED = (1e-4, 1e-2)


def means(params: list[dict[str, Any]], x: Any, bits: int) -> jax.Array:
    """The network's outputs [B, 8] where products take inputs of `bits` mantissa bits."""
    for i, layer in enumerate(params):
        a, b = (
            jax.lax.reduce_precision(y, exponent_bits=8, mantissa_bits=bits)
            for y in (x, layer["kernel"])
        )
        x = jnp.matmul(a, b, precision="highest") + layer["bias"]
        x = jnp.tanh(x) if i < len(params) - 1 else x
    return x


def exact_means(params: list[dict[str, Any]], x: np.ndarray) -> np.ndarray:
    """The same in float64."""
    for i, layer in enumerate(params):
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = np.tanh(x) if i < len(params) - 1 else x
    return x


def random_params(rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
    return [
        {
            "kernel": rng.normal(0, a**-0.5, (a, b)).astype(np.float32),
            "bias": rng.normal(0, 0.1, b).astype(np.float32),
        } for a, b in itertools.pairwise(SIZES)
    ]


def moved(params: list, direction: list, scale: float) -> list:
    return jax.tree.map(lambda p, d: (p + scale * d).astype(np.float32), params, direction)


def measure(bits: int, std: float, seed: int = 0) -> dict[str, float]:
    """KLs as they are measured, by what they are in float64, and the drift of an exact fold."""
    rng = np.random.default_rng(seed)
    params, direction = random_params(rng), random_params(rng)
    x = rng.normal(size=(8192, SIZES[0])).astype(np.float32)
    log_std = jnp.full((SIZES[-1],), np.log(std), jnp.float32)

    @jax.jit
    def kl(old: list, new: list, seen: Any, later: Any) -> jax.Array:
        before, after = (
            DiagonalGaussian(means(p, y, bits), log_std) for p, y in ((old, seen), (new, later))
        )
        return jnp.mean(before.kl_divergence(after))

    def exact(new: list) -> float:
        gap = exact_means(params, x.astype(np.float64)) - exact_means(new, x.astype(np.float64))
        return float(np.mean(np.sum(gap**2, -1)) / (2 * std**2))

    found = {}
    for wanted in WANTED:
        scale = 1e-3
        for _ in range(6):  # a KL goes with the square of a small step
            scale *= (wanted / exact(moved(params, direction, scale))) ** 0.5
        new = moved(params, direction, scale)
        found[f"{wanted:g}"] = float(kl(params, new, x, x)) / exact(new)
    old = RunningStatistics(jnp.float32(1), jnp.zeros(SIZES[0]), jnp.ones(SIZES[0]))
    later = RunningStatistics(
        jnp.float32(2), 0.3 * jnp.asarray(rng.normal(size=SIZES[0]), jnp.float32),
        jnp.asarray(rng.uniform(0.5, 2.0, SIZES[0]), jnp.float32),
    )
    folded = [fold_input(params[0], old, later), *params[1:]]
    found["drift"] = float(kl(params, folded, old.normalize(x), later.normalize(x)))
    return found


def table() -> str:
    head = [f"a KL of {wanted:g} reads as" for wanted in WANTED]
    lines = [f"| products | deviation | {' | '.join(head)} | drift of a fold |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for kind, bits in KINDS.items():
        for std in STDS:
            found = measure(bits, std)
            readings = [f"{found[f'{w:g}'] * w:.3g}" for w in WANTED]
            lines.append(f"| {kind} | {std:g} | {' | '.join(readings)} | {found['drift']:.1e} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    write, made = parser.parse_args().write, table()
    print(made)
    if write:
        text = PAGE.read_text()
        before, rest = text.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{made}\n{END}{rest.split(END, 1)[1]}")


if __name__ == "__main__":
    main()
