"""Where experience comes from: making environments by name, and stepping them in batches."""

from __future__ import annotations

from typing import Any

from jtrust import checks
from jtrust.environments import (
    brax_suite,
    gymnax_suite,
    own_environment,
    playground_suite,
    safe_suite,
    wrappers,
)
from jtrust.environments.base import (
    Bins,
    Box,
    Discrete,
    Environment,
    describe,
    with_action_bins,
)
from jtrust.startup import check_platform

SUITES = {
    "brax": brax_suite, "playground": playground_suite, "gymnax": gymnax_suite, "safe": safe_suite,
}

__all__ = [
    "SUITES", "Bins", "Box", "Discrete", "Environment", "describe", "make_env", "split_name",
    "with_action_bins", "wrappers",
]


def split_name(name: str) -> tuple[str, str]:
    """`SUITE/NAME` as (suite, name); a bare name means brax."""
    if not isinstance(name, str) or not name.strip():
        raise checks.BadArgument("ENV", name, "must be SUITE/NAME, such as brax/ant")
    suite, slash, rest = name.partition("/")
    return (suite, rest) if slash else ("brax", name)


def make_env(name: str, /, **kwargs: Any) -> Environment:
    """Makes an environment by name.

    Args:
      name: `SUITE/NAME`, such as `brax/ant`, where a bare name means brax; or `MODULE:CALLABLE`,
        which makes an environment of the user's own.
      **kwargs: `backend`; `episode_length` (steps; by default the suite's, often 1000);
        `policy_observation` and `value_observation`, where observations are a dictionary;
        `domain_randomization`, `randomizer`; `download=True`, to fetch robots' models that are
        missing; and what the suite's own constructor takes.

    Raises:
      BadArgument: an unknown name, backend or option, with the nearest that there are.
    """
    check_platform()
    suite, rest = split_name(name)
    if "+" in name:
        made, _, change = name.partition("+")
        raise checks.BadArgument(
            "ENV", name, f"is {made} changed in Python by {change}; pass it as env="
        )
    if ":" in name and "/" not in name:
        return own_environment.make(name, **kwargs)
    if suite not in SUITES:
        known = [f"{s}/{n}" for s in SUITES for n in _names(s)]
        near = checks.nearest(name, known)
        raise checks.BadArgument(
            "ENV", name, "unknown environment; " + (
                f"did you mean {' or '.join(near)}?" if near else
                "`jtrust envs` lists what there is, and MODULE:CALLABLE makes one of your own"
            )
        )
    if suite != "playground" and kwargs.pop("download", False):
        raise checks.BadArgument("download", True, f"{name} needs none; leave it out")
    return SUITES[suite].make(rest, **kwargs)


def _names(suite: str) -> list[str]:
    """The names of a suite, or none where its extra is missing."""
    try:
        return SUITES[suite].names()
    except checks.BadArgument:
        return []
