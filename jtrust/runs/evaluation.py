"""Evaluation while a run trains: whole episodes of its policy, by a program of their own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.training import Trainer, evaluate_policy
from jtrust.training.mesh import local

EPISODES = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """Every so many iterations, whole episodes of the policy's mode, each environment counted once.

    They are those of `jtrust evaluate RUN_DIR --step STEP --episodes EPISODES`: the same start
    states each time. Training does not know of them: its program and its keys are its own.

    Attributes:
      trainer: what is trained.
      every: iterations from one to the next; the last of the run is evaluated, too.
      total: iterations of the run.
      episodes: how many, side by side.
    """

    trainer: Trainer
    every: int
    total: int
    episodes: int = EPISODES

    def wanted(self, iteration: int) -> bool:
        """Whether the policy after this iteration is to be evaluated."""
        return iteration % self.every == 0 or iteration == self.total

    def start(self, acting: Any) -> dict[str, jax.Array]:
        """Begins it on the device, behind what is under way: rows of metrics, [] each.

        Args:
          acting: (parameters, statistics) of the policy; not to be donated.
        """
        return self._program(jax.tree.map(local, acting))

    @functools.cached_property
    def _program(self) -> Callable:
        return jax.jit(self.of)

    def of(self, acting: Any) -> dict[str, jax.Array]:
        """Mean return and length over episodes that stayed finite; NaN where none did. Pure."""
        found = evaluate_policy(
            self.trainer.environment, self._act, acting, jax.random.key(0), self.episodes
        )
        whole = ~found["nonfinite"]
        count = jnp.sum(whole)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.where(count > 0, jnp.sum(jnp.where(whole, x, 0)) / count, jnp.nan)

        return {f"evaluation/{name}": mean(found[name]) for name in ("return", "length")}

    @functools.cached_property
    def _act(self) -> Callable:
        def act(acting: Any, observation: Any, keys: jax.Array) -> jax.Array:
            params, statistics = acting
            return self.trainer.policy(params, statistics, observation).mode()

        return act


def without() -> dict[str, None]:
    """The rows of an iteration that is not evaluated."""
    return {"evaluation/return": None, "evaluation/length": None}


