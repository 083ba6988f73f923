"""Fitting the value network to its targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jtrust import checks
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import BySize, by_size
from jtrust.algorithms.gauss_newton import gauss_newton_step
from jtrust.algorithms.minibatch_sgd import init_optimizer, minibatch_sgd
from jtrust.hyperparameters import hyperparameters, static

# (params, normalised observations [B, V]) -> values on the targets' scale [B]
ValueFn = Callable[[Any, jax.Array], jax.Array]
SOLVERS = ("adam", "gauss-newton")


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class ValueFit(BySize):
    """Least squares on the value targets, once or in rounds.

    Targets are λ-returns (Sutton, 1988); in rounds, each has a Gauss-Newton step for all layers and
    a linear solve for the last one (LSTD: Bradtke and Barto, 1996). The algorithms take each of
    these by its name behind `value_`, so that is how errors call them.

    Attributes:
      td_lambda: λ of the value targets, `value_lambda`; None for that of the advantages.
      rounds: how often values are fitted to a rollout, to targets computed anew from those of the
        round before; all rounds but the last come before the policy's update, whose advantages are
        by the values that they end with.
      solver: "adam", minibatches of gradient steps; or "gauss-newton", one step of second order a
        round, which an accelerator does in a small part of the time.
      learning_rate: Adam's step size.
      epochs: Adam's passes over a batch in each round.
      minibatches: Adam's steps per pass; by default one for every 512 steps of the rollout, from 8
        to 128 (`minibatches_for`).
      cg_iterations: conjugate-gradient iterations for a step of Gauss-Newton.
      damping: multiple of the identity added to the Gauss-Newton matrix; values and observations
        are on a scale of one.
    """

    td_lambda: float | None = None
    rounds: int = static(by_size(1))
    solver: str = static(by_size("adam"))
    learning_rate: float = 1e-3
    epochs: int = static(2)
    minibatches: int | None = static(None)
    cg_iterations: int = static(6)
    damping: float = 1e-3

    def __post_init__(self):
        if self.td_lambda is not None:
            checks.real_number("value_lambda", self.td_lambda, minimum=0, maximum=1, example=0.99)
        checks.whole_number("value_rounds", self.rounds, maximum=1000, example=4)
        checks.one_of("value_solver", self.solver, SOLVERS)
        checks.real_number("value_learning_rate", self.learning_rate, above=0, example=1e-3)
        checks.whole_number("value_epochs", self.epochs, maximum=10_000, example=2)
        if self.minibatches is not None:
            checks.whole_number("value_minibatches", self.minibatches, example=8)
        checks.whole_number("value_cg_iterations", self.cg_iterations, maximum=10_000, example=6)
        checks.real_number("value_damping", self.damping, minimum=0, example=1e-3)

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        return {"rounds": 4, "solver": "gauss-newton", "td_lambda": 1.0}

    def init(self, params: Any) -> Any:
        """The optimiser's state before the first fit: Adam's moments, nothing without Adam."""
        if self.solver == "gauss-newton":
            return ()
        return init_optimizer(self._optimizer(), params)

    def update(
        self, state: Any, params: Any, value_fn: ValueFn, batch: Batch,
        axis_name: str | None = None,
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        """One round: minibatches by Adam, or one step of Gauss-Newton.

        Args:
          state: of `init(params)`, or of the fit before.
          params: of the value network.
          value_fn: (params, normalised observations [B, V]) -> values on the targets' scale [B].
          batch: the rollout.
          axis_name: mesh axis of the shards.

        Returns:
          (params, state, {"value/loss", "value/skipped"}): the loss of Adam's last pass, or after
          the step of Gauss-Newton; how many steps were left out.
        """
        if self.solver == "gauss-newton":
            params, loss, taken = gauss_newton_step(
                value_fn, params, batch.value_observation, batch.value_target, batch.weights(),
                iterations=self.cg_iterations, damping=self.damping, on_cpu=batch.on_cpu,
                axis_name=axis_name,
            )
            skipped = 1.0 - taken.astype(jnp.float32)
            return params, state, {"value/loss": loss, "value/skipped": skipped}

        def loss_fn(params, observation, target, weight):
            return 0.5 * jnp.mean(weight * (value_fn(params, observation) - target) ** 2), 0.0

        params, state, losses, skipped, _ = minibatch_sgd(
            loss_fn, self._optimizer(), params, state,
            (batch.value_observation, batch.value_target, batch.weights()),
            batch.environment_keys, self.epochs, self.minibatches, axis_name,
        )
        return params, state, {"value/loss": jnp.mean(losses[-1]), "value/skipped": skipped}

    def _optimizer(self) -> optax.GradientTransformation:
        """Adam on gradients of a norm of at most 1; targets have a standard deviation near 1."""
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(self.learning_rate))
