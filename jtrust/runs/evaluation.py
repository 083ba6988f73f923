"""Evaluation while a run trains: whole episodes of its policy, by a program of their own."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.runs.config import RunConfig
from jtrust.training import Trainer, evaluate_policy
from jtrust.training.mesh import local

EPISODES = 32
RETURN = "evaluation/return"


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """What a run is to do about evaluations, as its configuration keeps it.

    Attributes:
      every: iterations from one to the next; None for none.
      keep_best: whether the checkpoint of the best one is kept.
      stop_at: the mean return that is enough; None trains to the last step.
    """

    every: int | None = None
    keep_best: bool = False
    stop_at: float | None = None

    def checked(self, kept: bool) -> Evaluations:
        """The same; `kept` is whether the run has a directory.

        Raises:
          BadArgument: what will not do.
        """
        every, enough = self.every, self.stop_at
        if every is not None:
            every = checks.whole_number("evaluate_every", every, example=10)
        checks.truth_value("keep_best", self.keep_best)
        if enough is not None:
            checks.real_number("stop_at", enough, minimum=-1e12, example=900)
            enough = float(enough)
        for name, value in (("keep_best", self.keep_best or None), ("stop_at", enough)):
            if value is not None and every is None:
                raise checks.BadArgument(name, value, "needs evaluate_every, such as 10")
        if self.keep_best and not kept:
            raise checks.BadArgument("keep_best", True, "needs a run_dir to write into")
        return Evaluations(every, bool(self.keep_best), enough)

    def as_json(self) -> dict[str, Any]:
        """What is not as by default."""
        found = dataclasses.asdict(self)
        return {k: v for k, v in found.items() if v is not None and v is not False}


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

    @classmethod
    def of_run(cls, trainer: Trainer, config: RunConfig) -> Evaluation | None:
        """As a run's configuration says; None where it has none."""
        every = config.evaluation.get("every")
        return None if every is None else cls(trainer, every, config.total_iterations)

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
            self.trainer.environment, self._act, acting, jax.random.key(0), self.episodes,
            self.trainer.policy_network.initial_carry((self.episodes,)),
        )
        whole = ~found["nonfinite"]
        count = jnp.sum(whole)

        def mean(x: jax.Array) -> jax.Array:
            return jnp.where(count > 0, jnp.sum(jnp.where(whole, x, 0)) / count, jnp.nan)

        names = without(self.trainer.environment.costs)
        return {name: mean(found[name.partition("/")[2]]) for name in names}

    @functools.cached_property
    def _act(self) -> Callable:
        agent = self.trainer.agent

        def act(acting: Any, carry: Any, observation: Any, keys: jax.Array) -> tuple:
            params, statistics = acting
            inputs = agent.policy_inputs(statistics, observation)
            distribution, carry = agent.policy_network.apply(params, carry, inputs)
            return distribution.mode(), carry

        return act


def without(costs: Iterable[str] = ()) -> dict[str, None]:
    """The rows of an iteration that is not evaluated, in an environment with these costs."""
    names = (RETURN, "evaluation/length", *(f"evaluation/cost/{name}" for name in costs))
    return dict.fromkeys(names)


