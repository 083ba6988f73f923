"""The training iteration: collect, estimate, prepare, evaluate, update."""

from __future__ import annotations

import dataclasses

import jax

from jtrust.algorithms import Algorithm, Batch
from jtrust.training.batch_statistics import explained_variance, summarize_episodes
from jtrust.training.collection import Collection
from jtrust.training.costs import Constraints
from jtrust.training.estimation import Estimation
from jtrust.training.mesh import AXIS
from jtrust.training.policy_evaluation import PolicyEvaluation
from jtrust.training.preparation import Preparation
from jtrust.training.random_keys import environment_keys
from jtrust.training.state import TrainState

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Iteration:
    """One turn of training, written for one shard of the environments; pure.

    Attributes:
      collect: lets the policy act.
      estimate: judges what it did.
      prepare: normalises it, and makes a batch of it.
      evaluate: has the values follow the policy, where rollouts are large.
      algorithm: improves the policy inside its trust region.
      constrain: judges costs, where they have limits.
    """

    collect: Collection
    estimate: Estimation
    prepare: Preparation
    evaluate: PolicyEvaluation
    algorithm: Algorithm
    constrain: Constraints | None = None

    def __call__(self, state: TrainState) -> tuple[TrainState, Metrics]:
        """(the state after it, metrics [] each)."""
        keys = environment_keys(state, self.collect.envs_per_device)
        state, trajectory, totals = self.collect(state, keys)
        before = state
        of_costs: Metrics = {}
        estimates = self.estimate(state, trajectory)
        state, batch, of_statistics = self.prepare(state, trajectory, estimates, keys)
        state, batch = self.evaluate(state, trajectory, batch)
        if self.constrain is not None:
            state, batch, of_costs = self.constrain(before, state, trajectory, batch)
        state, of_update = self.update(state, batch)

        of_episodes, last_episodes = summarize_episodes(totals, state.last_episodes)
        state = dataclasses.replace(
            state, last_episodes=last_episodes, iteration=state.iteration + 1
        )
        return state, {
            **of_episodes, **of_update, **of_statistics, **of_costs,
            "value/explained_variance": explained_variance(
                estimates.values, estimates.targets, batch.weight
            ),
        }

    def update(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        """Moves the policy inside its trust region, and fits the values."""
        network = self.collect.agent.policy_network
        with jax.named_scope("policy_update"):
            policy, policy_optimizer, of_policy = self.algorithm.update(
                state.policy_optimizer, state.policy, network, batch, AXIS
            )
        value, value_optimizer, of_values = self.evaluate.fit(state, batch)
        state = dataclasses.replace(
            state, policy=policy, policy_optimizer=policy_optimizer, value=value,
            value_optimizer=value_optimizer,
        )
        return state, {**of_policy, **of_values}
