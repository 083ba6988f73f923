"""Timing two things in turn, so that a machine's moods fall on both."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass
class Row:
    """One line of the table.

    Attributes:
      name: what over what.
      ratios: one per pair of measurements; empty where nothing could be measured.
      detail: absolute figures, or why there are none.
    """

    name: str
    ratios: list[float]
    detail: str


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call, its results awaited."""
    start = time.perf_counter()
    jax.block_until_ready(function())
    return time.perf_counter() - start


def in_turn(
    functions: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Seconds of each function, called in turn, after one call of each that does not count."""
    for function in functions.values():
        jax.block_until_ready(function())
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            found[name].append(seconds(function))
    return found


def ratios(a: list[float], b: list[float]) -> list[float]:
    """a over b, pair by pair."""
    return [x / y for x, y in zip(a, b, strict=True)]
