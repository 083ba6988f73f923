"""Brax's environments with costs made from their states, for learning under limits.

Speed limits on walking robots are those of Zhang, Vuong and Ross (2020, arXiv:2002.06506) and of
Safety-Gymnasium's velocity tasks; they need no robot or scene of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.environments import brax_suite
from jtrust.environments.base import Environment
from jtrust.environments.wrappers import add_costs

Cost = Callable[[Any, jax.Array, Any], jax.Array]


def speed(state: Any, action: jax.Array, after: Any) -> jax.Array:
    """How fast the robot moves forwards or backwards, metres per second."""
    return jnp.abs(after.metrics["x_velocity"])


def torque(state: Any, action: jax.Array, after: Any) -> jax.Array:
    """How much the motors are used: mean over them of |action|, 1 where all are at their limit."""
    return jnp.mean(jnp.abs(action))


def distance(state: Any, action: jax.Array, after: Any) -> jax.Array:
    """How far the cart is from the middle of its rail, metres."""
    return jnp.abs(after.pipeline_state.q[0])


# By name: Brax's environment, and its costs.
_TASKS: dict[str, tuple[str, dict[str, Cost]]] = {
    "ant_speed": ("ant", {"speed": speed}),
    "hopper_speed": ("hopper", {"speed": speed}),
    "hopper_speed_torque": ("hopper", {"speed": speed, "torque": torque}),
    "inverted_pendulum_distance": ("inverted_pendulum", {"distance": distance}),
    "inverted_double_pendulum_torque": ("inverted_double_pendulum", {"torque": torque}),
    "reacher_torque": ("reacher", {"torque": torque}),
    "walker2d_speed": ("walker2d", {"speed": speed}),
}


def names() -> list[str]:
    """The names that `make` takes."""
    return sorted(_TASKS)


def backends(name: str) -> tuple[str, ...]:
    """The physics backends of an environment, its default first."""
    return brax_suite.backends(_TASKS[name][0])


def remark(name: str) -> str:
    """What its costs are, for a list of the environments."""
    return f"(cost: {', '.join(sorted(_TASKS[name][1]))})"


def make(name: str, /, **options: Any) -> Environment:
    """Makes one of Brax's environments that tells costs.

    Args:
      name: one of `names()`.
      **options: as for Brax's own, `brax_suite.make`.
    """
    checks.one_of("ENV", name, names(), "environment with costs")
    base, costs = _TASKS[name]
    made = brax_suite.make(base, **options)
    with_costs = add_costs(made, costs)
    label = made.name.replace(f"brax/{base}", f"safe/{name}", 1)
    return dataclasses.replace(with_costs, name=label)
