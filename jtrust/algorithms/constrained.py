"""What algorithms that keep costs below limits share: the limits, and how far costs are beyond."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms.batch import Batch, CostBatch

if TYPE_CHECKING:
    from jtrust.environments import Environment

_FORM = "must be NAME=LIMIT, or several separated by commas, such as speed=25,torque=100"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constrained:
    """Limits on costs, for an algorithm to derive from beside another.

    A limit is on the mean, over episodes, of the undiscounted sum of a cost over an episode, J_C:
    as in Achiam et al. (2017), section 8, and in Safety-Gymnasium and OmniSafe.

    Attributes:
      cost_limits: d of each cost of the environment, by name: `{"speed": 25.0, "torque": 100.0}`,
        or a text, speed=25,torque=100.
    """

    cost_limits: str | Mapping[str, float] = ""

    def __post_init__(self):
        super().__post_init__()  # type: ignore[misc]
        # By name, so that a text is a dictionary from here on: a pytree whose numbers may vary.
        object.__setattr__(self, "cost_limits", _limits(self.cost_limits))

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Names of the costs that have a limit, sorted."""
        assert not isinstance(self.cost_limits, str)
        return tuple(sorted(self.cost_limits))

    def limits_of_costs(self) -> jax.Array:
        """d, [K], in the order of `cost_names`."""
        assert not isinstance(self.cost_limits, str)
        return jnp.stack([
            jnp.asarray(self.cost_limits[name], jnp.float32) for name in self.cost_names
        ])

    def check_environment(self, environment: Environment) -> None:
        """Raises `BadArgument` where limits and an environment's costs do not go together."""
        name, costs = environment.name, environment.costs
        if not costs:
            raise checks.BadArgument(
                "algorithm", self.name,  # type: ignore[attr-defined]
                f"needs costs, and {name} has none: see `jtrust envs`, safe/..., or tell them in "
                "state.cost; trpo and ppo need none",
            )
        for limited in self.cost_names:
            checks.one_of("cost_limits", limited, costs, f"cost of {name}")
        if missing := [cost for cost in costs if cost not in self.cost_names]:
            raise checks.BadArgument(
                "cost_limits", self.cost_limits,
                f"must have a limit for each cost of {name}, and {', '.join(missing)} has none: "
                f"such as {','.join(f'{cost}=25' for cost in costs)}",
            )

    def cost_metrics(self, multipliers: jax.Array) -> dict[str, jax.Array]:
        """Limits and multipliers [K] as metrics."""
        limits = self.limits_of_costs()
        return {
            f"cost/{name}/{what}": x[i] for i, name in enumerate(self.cost_names)
            for what, x in (("limit", limits), ("multiplier", multipliers))
        }


def costs_of(batch: Batch) -> CostBatch:
    """What a batch says of costs.

    Raises:
      ValueError: nothing, as of a trainer that was not made for a constrained algorithm.
    """
    if batch.costs is None:
        raise ValueError("the batch has no costs; make the trainer with jtrust.make_trainer")
    return batch.costs


def _limits(given: Any) -> dict[str, Any]:
    """Limits by name, sorted.

    Raises:
      BadArgument: what is none.
    """
    if isinstance(given, str):
        found: dict[str, Any] = {}
        for part in filter(None, given.split(",")):
            name, equals, number = part.partition("=")
            name = name.strip()
            if not equals or not name or name in found:
                raise checks.BadArgument("cost_limits", given, _FORM)
            found[name] = checks.text_as_number("cost_limits", number, float)
        given = found
    # After a transformation there may be anything in the place of numbers, and of all of them.
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise checks.BadArgument("cost_limits", given, _FORM)
    for name, limit in given.items():
        try:
            checks.real_number(name, limit, minimum=0, example=25)
        except checks.BadArgument as error:
            raise checks.BadArgument("cost_limits", f"{name}={limit}", error.remedy) from error
    return {name: given[name] for name in sorted(given)}
