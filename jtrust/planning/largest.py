"""The largest number of environments that fits, found by compiling."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from jtrust import checks

# Environments of one device beyond which nobody asks: XLA takes minutes to fold constants of that
# size.
MOST_PER_DEVICE = 2**20
_MOST_IN_ALL = 2**24  # make_trainer's limit
_MOST = 12  # programs


@dataclasses.dataclass(frozen=True)
class Measured:
    """One program: whether it fits, and the bytes that it needs; None where XLA does not say."""

    fits: bool
    memory_bytes: int | None


@dataclasses.dataclass(frozen=True)
class Largest:
    """Attributes:
      fits: the largest number tried that fits; None where not even one per device does.
      exceeds: the smallest number tried that does not fit; None where all do, up to a million per
        device.
      programs: how many were compiled to find it, the one at the start included.
    """

    fits: int | None
    exceeds: int | None
    programs: int


def find_largest(
    measure: Callable[[int], Measured], devices: int, start: int, first: Measured, usable: int
) -> Largest:
    """Searches among `devices` times the powers of two.

    Memory grows nearly evenly with environments, so the next number tried is where a straight
    line through what is known crosses the limit; two neighbours that were compiled, one that fits
    and one that does not, end the search.

    Args:
      measure: compiles for a number of environments; `BadArgument` ends the search there.
      devices: how many share them.
      start: a number that has been compiled.
      first: what came of it.
      usable: bytes that a program may have.
    """
    known = {start: first}
    limit = min(MOST_PER_DEVICE, _MOST_IN_ALL // devices)
    top = max(int(math.log2(limit)), 0)
    low = max((k for k in range(top + 1) if devices << k <= start), default=0)
    # Exponents: the largest known to fit, and the smallest known not to.
    fits = low if first.fits else -1
    exceeds = top + 1 if first.fits else low + (devices << low < start)
    while exceeds - fits > 1 and len(known) < _MOST:
        guess = _crossing(known, usable)
        k = fits + 1 if guess is None else int(math.log2(max(guess / devices, 1)))
        k = min(max(k, fits + 1), exceeds - 1)
        count = devices << k
        try:
            known[count] = measure(count)
        except checks.BadArgument:  # such as minibatches that do not divide it
            exceeds = k
            continue
        if known[count].fits:
            fits = k
        else:
            exceeds = k
    that_fit = [n for n, found in known.items() if found.fits]
    others = [n for n, found in known.items() if not found.fits]
    return Largest(max(that_fit, default=None), min(others, default=None), len(known))


def _crossing(known: dict[int, Measured], usable: int) -> float | None:
    """Environments at which memory meets the limit, by the two largest numbers known."""
    points = sorted((n, m.memory_bytes) for n, m in known.items() if m.memory_bytes)[-2:]
    if not points:
        return None
    n, m = points[-1]
    if len(points) == 1:
        return n * usable / m
    (before, less), slope = points[0], 0.0
    if n > before:
        slope = (m - less) / (n - before)
    return n + (usable - m) / slope if slope > 0 else n * usable / m
