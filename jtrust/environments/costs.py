"""Costs that an environment tells beside its rewards: `state.cost` or `state.info["cost"]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks

# What a cost is called where there is one without a name.
COST = "cost"
# Names go into those of metrics and into `--cost-limits NAME=LIMIT,NAME=LIMIT`.
_NAME = r"[A-Za-z0-9_.-]{1,64}"


def state_costs(state: Any) -> dict[str, Any]:
    """What a state says of costs, by name; {} where it says nothing.

    The costs of the step that led to it, as the reward is: `state.cost`, or `state.info["cost"]`
    where there is no such field; one number, which is then called "cost", or a dictionary of them.
    """
    found = getattr(state, "cost", None)
    if found is None:
        info = getattr(state, "info", None)
        found = info.get(COST) if isinstance(info, Mapping) else None
    if found is None:
        return {}
    return dict(found) if isinstance(found, Mapping) else {COST: found}


def cost_names(state: Any) -> tuple[str, ...]:
    """The names of a state's costs, sorted."""
    return tuple(sorted(state_costs(state)))


def check_costs(what: str, state: Any) -> None:
    """Raises `BadArgument` where costs are no scalars, or have names that will not do.

    Args:
      what: the function that returned the state, "reset" or "step".
      state: shapes of one state.
    """
    for name, value in state_costs(state).items():
        if not isinstance(name, str) or not re.fullmatch(_NAME, name):
            raise checks.BadArgument(
                f"env.{what}().cost", name,
                "is no name for a cost: letters, digits, dots, - and _, at most 64 of them",
            )
        shape: Any = getattr(value, "shape", None)
        dtype: Any = getattr(value, "dtype", None)
        if shape != ():
            raise checks.BadArgument(
                f"env.{what}().cost[{name!r}]", shape, "must be a scalar, shape ()"
            )
        kinds = (jnp.floating, jnp.integer, jnp.bool_)
        if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
            raise checks.BadArgument(
                f"env.{what}().cost[{name!r}]", str(dtype), "must be a real number"
            )


def step_costs(names: tuple[str, ...], states: Any) -> dict[str, jax.Array]:
    """The costs of one step of N environments, float32 [N] each; {} without any.

    Args:
      names: of the environment.
      states: after the step, [N, ...].
    """
    if not names:
        return {}
    found = state_costs(states)
    return {name: jnp.asarray(found[name], jnp.float32) for name in names}
