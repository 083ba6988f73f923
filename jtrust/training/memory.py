"""What a compiled program needs of a device's memory, and what there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

_GROUP = Path("/sys/fs/cgroup")


def parts_of_memory(program: Any) -> dict[str, int]:
    """Bytes on one device of arguments, outputs, temporaries, and of what outputs share with
    arguments, of what `jax.jit(...).lower(...).compile()` gave."""
    found = program.memory_analysis()
    return {
        "arguments": found.argument_size_in_bytes, "outputs": found.output_size_in_bytes,
        "temporaries": found.temp_size_in_bytes, "aliased": found.alias_size_in_bytes,
    }


def at_its_highest(parts: dict[str, int]) -> int:
    """Bytes that a program holds at most at a time, of `parts_of_memory`."""
    return parts["arguments"] + parts["outputs"] + parts["temporaries"] - parts["aliased"]


def available(devices: Sequence[jax.Device]) -> int | None:
    """Bytes of memory that each of these devices can have; None where nobody says.

    CPU devices share what the machine has left.
    """
    first = devices[0]
    if first.platform == "cpu":
        left = _left_on_this_machine()
        return None if left is None else left // len(devices)
    stats = first.memory_stats() or {}
    return stats.get("bytes_limit")


def _left_on_this_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:  # no Linux
        return None
    left = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable:")), None)
    of_group = _left_to_this_group()
    return of_group if left is None else left if of_group is None else min(left, of_group)


def _left_to_this_group() -> int | None:
    """Of what a container may have, by Linux's control groups (version 2)."""
    try:
        most, used = ((_GROUP / f"memory.{x}").read_text().strip() for x in ("max", "current"))
        return max(int(most) - int(used), 0)
    except (OSError, ValueError):  # none, or "max"
        return None
