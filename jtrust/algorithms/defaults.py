"""Defaults that depend on the size of a rollout."""

from __future__ import annotations

from typing import Any

# Steps up to which a rollout is small: 256 environments with unrolls of 64.
SMALL_ROLLOUT = 16_384


def is_large(num_envs: int, unroll_length: int) -> bool:
    """Whether a rollout has more than `SMALL_ROLLOUT` steps."""
    return num_envs * unroll_length > SMALL_ROLLOUT


class SizeDependent:
    """Mark of a default that large rollouts have another in place of; see `by_size`."""


class SizeDependentFloat(float, SizeDependent):
    """A marked number."""


class SizeDependentInt(int, SizeDependent):
    """A marked count."""


class SizeDependentStr(str, SizeDependent):
    """A marked name."""


_MARKED = {float: SizeDependentFloat, int: SizeDependentInt, str: SizeDependentStr}


def by_size(default: float | int | str) -> Any:
    """A default for small rollouts, told apart from the same value where a user gives it.

    It is that number, or text, wherever it is read; `Algorithm.settled` puts a plain one in its
    place.
    """
    return _MARKED[type(default)](default)


def plain(value: Any) -> Any:
    """A default without its mark; anything else as it is."""
    for kind, marked in _MARKED.items():
        if isinstance(value, marked):
            return kind(value)
    return value
