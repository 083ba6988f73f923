"""Checks of what users pass in, and the exceptions that answer them in one line."""

from __future__ import annotations

import difflib
import importlib.util
import math
import numbers
import sys
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

# Arguments that only Python has.
_NO_OPTIONS = ("env", "options", "environment", "policy_network", "value_network", "randomizer")


class BadArgument(ValueError):
    """A user's mistake: which argument, what was given, and what would do.

    The command line prints it as one line that names the option (`as_option`); from Python it is
    a `ValueError` whose message names the argument.
    """

    def __init__(self, name: str, value: Any, remedy: str):
        self.name, self.value, self.remedy = name, value, short(remedy, 1000)
        super().__init__(f"{name}={_shown(value, repr)}: {self.remedy}")

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.value, self.remedy)

    def as_option(self) -> str:
        """The same sentence in the command line's terms: `--max-kl nan: ...`."""
        option = self.name
        plain = option.replace("-", "_").isidentifier()
        if plain and not option.isupper() and option not in _NO_OPTIONS:
            option = "--" + option.replace("_", "-")
        return f"{option} {_shown(self.value, str)}: {self.remedy}"


class TrainingFailed(Exception):
    """Training cannot go on; the message says why, and what is left."""


def printable(text: str) -> str:
    """`text` in one line, with what would steer a terminal written as Python writes it: `\\x1b`."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode()
        for c in " ".join(text.split())
    )


def short(text: str, limit: int = 200) -> str:
    """`text`, printable, of at most `limit` characters."""
    text = printable(text[: 2 * limit])
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _shown(value: Any, write: Callable[[Any], str]) -> str:
    try:
        return short(write(value))
    except Exception:  # whole numbers of thousands of digits, and objects of the user's own
        return f"of type {type(value).__name__}"


def is_number(value: Any) -> bool:
    """Whether `value` is a plain real number: not a bool, not an array, not a tracer."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond what a float can be
        return False


def text_as_number(name: str, text: str, kind: type[int] | type[float]) -> Any:
    """The number that a text of the command line says, or raises `BadArgument`."""
    try:
        return kind(text)
    except ValueError as error:
        wanted = "a whole number" if kind is int else "a number"
        raise BadArgument(name, text, f"must be {wanted}") from error


def installed(name: str, value: Any, module: str) -> None:
    """Raises `BadArgument` where the module of an extra, called as the argument, is missing."""
    if module not in sys.modules and importlib.util.find_spec(module) is None:
        raise BadArgument(name, value, f"needs `pip install 'jtrust[{name}]'`")


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
    if not (is_number(value) and _is_finite(value) and low_ok and value <= maximum):
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
    near = " or ".join(nearest(value, choices))
    remedy = f"did you mean {near}?" if near else "choose from " + listed(choices)
    raise BadArgument(name, value, f"unknown {what or name.lower()}; {remedy}")


def nearest(value: Any, choices: list[str]) -> list[str]:
    """At most three of `choices` that `value` may be a slip of."""
    value = str(value)[:200]
    near = difflib.get_close_matches(value, choices, n=3, cutoff=0.5)
    if not near and value:
        near = [c for c in choices if value.lower() in c.lower()][:3]
    return near


def listed(choices: list[str], most: int = 15) -> str:
    """`choices` one after another; of many only the first, and how many there are."""
    if len(choices) <= most:
        return ", ".join(choices)
    return ", ".join(choices[:5]) + f" and {len(choices) - 5} more"


def random_key(name: str, value: Any) -> None:
    """Checks that `value` is one random key: a typed one, or raw words as `jax.random.PRNGKey`."""
    shape: Any = getattr(value, "shape", None)
    dtype: Any = getattr(value, "dtype", None)
    typed = isinstance(value, jax.Array) and jax.numpy.issubdtype(dtype, jax.dtypes.prng_key)
    raw = isinstance(value, (jax.Array, np.ndarray)) and dtype == np.uint32
    words = jax.eval_shape(lambda: jax.random.PRNGKey(0)).shape if raw else None
    if (typed and shape == ()) or (raw and shape == words):
        return
    if not typed and not raw:
        found, say = value, "must be a random key, such as jax.random.key(0)"
    else:
        found = f"{dtype}{list(shape)}"
        say = "must be one random key; for several, jax.vmap over them"
    raise BadArgument(name, found, say)
