"""Checks of what users pass in, and the exceptions that answer them in one line."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable
from typing import Any

# Arguments that only Python has.
_NO_OPTIONS = ("env", "options", "environment", "policy_network", "value_network", "randomizer")


class BadArgument(ValueError):
    """A user's mistake: which argument, what was given, and what would do.

    The command line prints it as one line that names the option (`as_option`); from Python it is
    a `ValueError` whose message names the argument.
    """

    def __init__(self, name: str, value: Any, remedy: str):
        self.name, self.value, self.remedy = name, value, remedy
        super().__init__(f"{name}={_short(repr(value))}: {remedy}")

    def as_option(self) -> str:
        """The same sentence in the command line's terms: `--max-kl nan: ...`."""
        option = self.name
        plain = option.replace("-", "_").isidentifier()
        if plain and not option.isupper() and option not in _NO_OPTIONS:
            option = "--" + option.replace("_", "-")
        return f"{option} {_short(str(self.value))}: {self.remedy}"


class TrainingFailed(Exception):
    """Training cannot go on; the message says why, and what is left."""


def _short(text: str, limit: int = 200) -> str:
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def is_number(value: Any) -> bool:
    """Whether `value` is a plain real number: not a bool, not an array, not a tracer."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def whole_number(
    name: str, value: Any, *, minimum: int = 1, maximum: int = 2**31 - 1, example: int | None = None
) -> int:
    """Returns `value` as an int in [minimum, maximum], or raises `BadArgument`."""
    integral = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integral or not minimum <= value <= maximum:
        like = f", such as {example}" if example is not None else ""
        bound = f"from {minimum} up" if maximum >= 2**31 - 1 and integral and value < minimum else (
            f"from {minimum} to {maximum}"
        )
        raise BadArgument(name, value, f"must be a whole number {bound}{like}")
    return int(value)


def real_number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    minimum: float | None = None,
    maximum: float = 1e12,
    example: float | None = None,
) -> None:
    """Checks a hyperparameter that may also be an array or a tracer (under `jax.vmap`).

    Arrays and tracers of numbers pass unread; everything else must be a finite number inside the
    bounds.
    """
    if hasattr(value, "dtype") and not isinstance(value, numbers.Real):
        return
    low_ok = is_number(value) and (
        (above is None or value > above) and (minimum is None or value >= minimum)
    )
    if not (is_number(value) and math.isfinite(value) and low_ok and value <= maximum):
        low = f"above {above:g}" if above is not None else f"of at least {minimum:g}"
        high = f" and at most {maximum:g}" if maximum < 1e12 else ""
        like = f", such as {example:g}" if example is not None else ""
        raise BadArgument(name, value, f"must be a finite number {low}{high}{like}")


def truth_value(name: str, value: Any) -> None:
    """Checks that `value` is True or False."""
    if not isinstance(value, bool):
        raise BadArgument(name, value, "must be True or False")


def one_of(name: str, value: Any, choices: Iterable[str], what: str | None = None) -> str:
    """Returns `value` if it is one of `choices`; else names the nearest ones in `BadArgument`."""
    choices = list(choices)
    if value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=3, cutoff=0.5)
    if not near and value:
        near = [c for c in choices if str(value).lower() in c.lower()][:3]
    if near:
        remedy = "did you mean " + " or ".join(near) + "?"
    else:
        remedy = "choose from " + ", ".join(choices)
    raise BadArgument(name, value, f"unknown {what or name.lower()}; {remedy}")
