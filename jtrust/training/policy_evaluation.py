"""Evaluating the policy to the end: values fitted to a rollout in rounds, before the update."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp

from jtrust.algorithms import Batch, ValueFit
from jtrust.algorithms.lstd import solve_output_layer
from jtrust.training.estimation import Estimation, ends_of_sums
from jtrust.training.mesh import AXIS
from jtrust.training.preparation import Preparation
from jtrust.training.rollout import Trajectory
from jtrust.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class PolicyEvaluation:
    """All rounds of the values' fit but the last, which follows the policy's update.

    Targets bootstrap from values, so one fit carries what rewards say only about 1 / (1 - γλ)
    steps, or one unroll, further back: it is one application of the operator T^λ whose fixed
    point is the policy's value (Tsitsiklis and Van Roy, 1997), and leaves as much as
    γ (1 - λ) / (1 - γλ) of the error, 0.9 with the defaults. Sixty-four environments apply it
    once in 4096 steps and keep up with their policy. Thousands would apply it once in hundreds
    of thousands, judge each policy by the values of one long gone, and need many times the
    steps to learn as much. So large rollouts are fitted several times, to targets computed
    anew in between, and advantages are those of the values that come out. Each fit forms the
    layers below the last, for which the fixed point is solved at once.

    Attributes:
      value_fit: how often, and how.
      estimate: judges anew after each round.
      prepare: puts what came out into the batch.
    """

    value_fit: ValueFit
    estimate: Estimation
    prepare: Preparation

    def __call__(
        self, state: TrainState, trajectory: Trajectory, batch: Batch
    ) -> tuple[TrainState, Batch]:
        """(state with the values of all rounds but the last, the batch that they judge)."""
        rounds = self.value_fit.rounds
        if rounds == 1:
            return state, batch
        scaled = self.prepare.agent.scaled_targets

        def fit(carry, number):
            value, optimizer, target, _ = carry
            current = dataclasses.replace(state, value=value, value_optimizer=optimizer)
            keys = jax.vmap(jax.random.fold_in, (0, None))(batch.environment_keys, number)
            value, optimizer, _ = self.fit(current, dataclasses.replace(
                batch, value_target=target, environment_keys=keys
            ))
            with jax.named_scope("value_fit"):
                current = self._at_fixed_point(
                    dataclasses.replace(current, value=value), trajectory, batch
                )
            _, advantages, targets = self.estimate(current, trajectory)
            return (current.value, optimizer, scaled(state, targets), advantages), None

        (value, optimizer, target, advantages), _ = jax.lax.scan(
            fit, (state.value, state.value_optimizer, batch.value_target, batch.advantage),
            jnp.arange(1, rounds),
        )
        batch = self.prepare.again(state, trajectory, batch, advantages, target)
        return dataclasses.replace(state, value=value, value_optimizer=optimizer), batch

    def fit(
        self, state: TrainState, batch: Batch
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        """One round: (parameters of the values, their optimiser's state, metrics)."""
        network = self.estimate.agent.value_network
        with jax.named_scope("value_fit"):
            return self.value_fit.update(state.value_optimizer, state.value, network, batch, AXIS)

    def _at_fixed_point(
        self, state: TrainState, trajectory: Trajectory, batch: Batch
    ) -> TrainState:
        """The last layer of the values solved for, where they are a linear function of it."""
        agent = self.estimate.agent
        values, _, targets = self.estimate(state, trajectory)
        left = agent.scaled_targets(state, targets) - agent.scaled_targets(state, values)
        _, memory = agent.values_along(state, trajectory)
        final = agent.environment.used(state.episodes.observation)
        value = solve_output_layer(
            agent.value_network, state.value, batch.value_observation,
            agent.value_network.following(
                memory.value, agent.value_inputs(state.observation_statistics, final)
            ), left,
            trajectory.termination, ends_of_sums(trajectory), trajectory.truncation,
            cast(jax.Array, batch.weight), self.estimate.gae.discount,
            self.estimate.target_lambda, AXIS,
        )
        return dataclasses.replace(state, value=value)
