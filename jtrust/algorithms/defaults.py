"""Defaults that depend on the size of a rollout."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Self

# Steps up to which a rollout is small: 256 environments with unrolls of 64.
SMALL_ROLLOUT = 16_384
# Steps of the rollouts by which the limits of large ones were chosen: 4096 environments.
_REFERENCE_ROLLOUT = 262_144


def is_large(num_envs: int, unroll_length: int) -> bool:
    """Whether a rollout has more than `SMALL_ROLLOUT` steps."""
    return num_envs * unroll_length > SMALL_ROLLOUT


def kl_scale(num_envs: int, unroll_length: int) -> float:
    """How much further than with 4096 environments x 64 steps a large rollout's update may go.

    The error of a gradient falls with the square root of the number of steps that it is averaged
    over, and the KL of the step along it that still pays rises as much: 0.5 with 1024
    environments, 1 with 4096, 2 with 16,384.
    """
    return (num_envs * unroll_length / _REFERENCE_ROLLOUT) ** 0.5


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

    It is that number, or text, wherever it is read; `BySize.settled` puts a plain one in its
    place.
    """
    return _MARKED[type(default)](default)


def plain(value: Any) -> Any:
    """A default without its mark; anything else as it is."""
    for kind, marked in _MARKED.items():
        if isinstance(value, marked):
            return kind(value)
    return value


class BySize:
    """A frozen dataclass some of whose defaults depend on the size of a rollout."""

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]  # of those that inherit it

    def settled(self, num_envs: int, unroll_length: int) -> Self:
        """The same for such rollouts: where one is large, `for_large` in place of defaults.

        What was given stays, whatever the size. docs/understand/batch-size.md says why.
        """
        large = {}
        if is_large(num_envs, unroll_length):
            large = self.for_large(num_envs, unroll_length)
        return dataclasses.replace(self, **{
            f.name: large.get(f.name, plain(value)) for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), SizeDependent)
            or (value is None and f.name in large)
        })

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        """Defaults for rollouts of more than `SMALL_ROLLOUT` steps, by name."""
        return {}
