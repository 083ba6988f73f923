"""Where experience comes from: making environments by name, and stepping them in batches."""

from __future__ import annotations

from typing import Any

from jtrust import checks
from jtrust.environments import brax_suite
from jtrust.environments.base import (
    Bins,
    Box,
    Discrete,
    Environment,
    describe,
    with_action_bins,
)

SUITES = {"brax": brax_suite}

__all__ = [
    "SUITES", "Bins", "Box", "Discrete", "Environment", "describe", "make_env", "split_name",
    "with_action_bins",
]


def split_name(name: str) -> tuple[str, str]:
    """`SUITE/NAME` as (suite, name); a bare name means brax."""
    if not isinstance(name, str) or not name.strip():
        raise checks.BadArgument("ENV", name, "must be SUITE/NAME, such as brax/ant")
    suite, slash, rest = name.partition("/")
    return (suite, rest) if slash else ("brax", name)


def make_env(name: str, **kwargs: Any) -> Environment:
    """Makes an environment by name.

    Args:
      name: `SUITE/NAME`, such as `brax/ant`; a bare name means brax.
      **kwargs: `backend`, `episode_length` (steps; 1000 by default), and what the suite's own
        constructor takes.

    Raises:
      BadArgument: an unknown name or backend, with the nearest that there are.
    """
    suite, rest = split_name(name)
    if suite not in SUITES:
        checks.one_of("ENV", name, [f"{s}/{n}" for s in SUITES for n in SUITES[s].names()],
                      "environment")
    return SUITES[suite].make(rest, **kwargs)
