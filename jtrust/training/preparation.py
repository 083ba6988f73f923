"""Preparing a rollout for the update: running statistics, standardised advantages, the batch."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp

from jtrust.algorithms import Batch
from jtrust.environments.base import select
from jtrust.networks import RunningStatistics
from jtrust.networks.sequence import every, observations
from jtrust.training.agent import Agent
from jtrust.training.batch_statistics import standardize, step_weights, trust
from jtrust.training.estimation import Estimates
from jtrust.training.mesh import AXIS
from jtrust.training.random_keys import MINIBATCHES
from jtrust.training.rollout import Trajectory
from jtrust.training.state import TrainState
from jtrust.trust_region import mean_over

# Value targets are scaled by about this many batches' statistics: returns grow while learning.
_TARGET_MEMORY = 10
# What a step is worth at which the simulator broke, in standard deviations of the advantage. With
# no weight at all breaking it still pays: the surrogate cannot see what became of the probability
# that leaves the whole steps, so it moves away from every state whose value is estimated too high
# and into the break, from where nothing is learned. Deviations below the average it never pays;
# where breaks have nothing to do with actions the term is zero on average.
BROKEN_ADVANTAGE = -2.0

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, eq=False)
class Preparation:
    """Takes a rollout into the running statistics, without moving the policy or the values.

    Attributes:
      agent: whose inputs and outputs are normalised.
      advantage_floor: of `GAE`.
      steps: environment steps of a rollout over all shards, N T.
      on_cpu: whether CPUs compute the update.
    """

    agent: Agent
    advantage_floor: jax.Array | float
    steps: int
    on_cpu: bool

    def __call__(
        self, state: TrainState, trajectory: Trajectory, estimates: Estimates, keys: jax.Array
    ) -> tuple[TrainState, Batch, Metrics]:
        """(state, the normalised batch, metrics of the running statistics, [] each)."""
        with jax.named_scope("normalization"):
            whole = cast(jax.Array, trajectory.whole)  # as a rollout has it
            weight, share = step_weights(whole)
            state, observed = self.update_statistics(
                state, self.agent.policy_sequence(trajectory), estimates.targets, weight, share
            )
            seen = state.rewards_seen.update(
                trajectory.reward, trajectory.termination, whole, AXIS
            )
            worth = self.worth(state, estimates.advantages, weight)
            environment = self.agent.environment
            # Once for both networks, which mostly read the same.
            observation = state.observation_statistics.normalize(trajectory.observation)
            agent, memory = self.agent, trajectory.memory
            batch = Batch(
                observation=agent.policy_network.sequence(
                    memory.policy, select(observation, environment.policy_key), trajectory.starts
                ),
                value_observation=agent.value_network.sequence(
                    memory.value, select(observation, environment.value_key), trajectory.starts
                ),
                action=trajectory.action,
                advantage=self.standard_advantages(trajectory, estimates.advantages, weight),
                value_target=self.agent.scaled_targets(state, estimates.targets),
                environment_keys=keys[:, MINIBATCHES],
                trust=jnp.where(seen.tell_apart() & (share > 0), worth, 0.0),
                weight=weight,
                broken=(~whole).astype(jnp.float32),
                on_cpu=self.on_cpu,
            )
        return dataclasses.replace(state, rewards_seen=seen), batch, observed

    def again(
        self, state: TrainState, trajectory: Trajectory, batch: Batch, advantages: jax.Array,
        value_target: jax.Array,
    ) -> Batch:
        """The batch with other advantages and value targets, as better values gave them."""
        return dataclasses.replace(
            batch, value_target=value_target,
            advantage=self.standard_advantages(trajectory, advantages, batch.weight),
            trust=jnp.where(
                batch.trust > 0, self.worth(state, advantages, batch.weight), 0.0
            ),
        )

    def worth(
        self, state: TrainState, advantages: jax.Array, weight: jax.Array | float
    ) -> jax.Array:
        """The share of the trust region that advantages are worth, []."""
        return trust(advantages, state.target_statistics, self.advantage_floor, weight)

    def standard_advantages(
        self, trajectory: Trajectory, advantages: jax.Array, weight: jax.Array | float
    ) -> jax.Array:
        """Advantages as the surrogate takes them, [T, N]."""
        return jnp.where(trajectory.whole, standardize(advantages, weight), BROKEN_ADVANTAGE)

    def update_statistics(
        self, state: TrainState, observation: Any, targets: jax.Array,
        weight: jax.Array | None = None, share: jax.Array | float = 1.0,
    ) -> tuple[TrainState, Metrics]:
        """Takes a batch into both statistics; also metrics: how far the policy moved by it.

        `observation` is raw, [T, N, O] or a dictionary of such; or, of a policy with memory, a
        sequence of them.
        """
        old, old_targets = state.observation_statistics, state.target_statistics
        new = old.update(observations(observation), AXIS, 2, weight, share)
        taken = old_targets.update(targets, AXIS, 2, weight, share)
        new_targets = self.forgetting(taken)
        moved = dataclasses.replace(
            state, policy=self.folded_policy(state, new),
            value=self.folded_value(state, new, new_targets),
            observation_statistics=new, target_statistics=new_targets,
        )
        return moved, {
            **self.drift(state, moved, observation),
            "observation/skipped": (new.count == old.count).astype(jnp.float32),
            "value/targets_skipped": (taken.count == old_targets.count).astype(jnp.float32),
        }

    def updated_targets(
        self, old: RunningStatistics, targets: jax.Array, weight: jax.Array,
        share: jax.Array | float,
    ) -> RunningStatistics:
        """The scale of value targets with a batch taken in."""
        return self.forgetting(old.update(targets, AXIS, 2, weight, share))

    def forgetting(self, statistics: RunningStatistics) -> RunningStatistics:
        """Statistics of value targets of which older ones than some batches count no more."""
        return statistics.forget(float(_TARGET_MEMORY * self.steps))

    def folded_policy(self, state: TrainState, new: RunningStatistics) -> Any:
        """Parameters of the policy that read by new statistics what they read by the old ones."""
        key, old = self.agent.environment.policy_key, state.observation_statistics
        folded = self.agent.policy_network.fold_input(state.policy, old.at(key), new.at(key))
        return unless_first(old, state.policy, folded)

    def folded_value(
        self, state: TrainState, new: RunningStatistics, new_targets: RunningStatistics
    ) -> Any:
        """Parameters of the values that mean by new statistics what they meant by the old ones."""
        network, key = self.agent.value_network, self.agent.environment.value_key
        old = state.observation_statistics
        folded = network.fold_input(state.value, old.at(key), new.at(key))
        folded = network.fold_output(folded, state.target_statistics, new_targets)
        return unless_first(old, state.value, folded)

    def drift(self, state: TrainState, moved: TrainState, observation: Any) -> Metrics:
        """How far the policy moved by new statistics, and what its precision leaves unknown."""
        # Eight of the time steps are enough to see a drift.
        stride = max(jax.tree.leaves(observation)[0].shape[0] // 8, 1)
        some = every(stride, observation, observation)
        before = self.agent.policy(state.policy, state.observation_statistics, some)
        after = self.agent.policy(moved.policy, moved.observation_statistics, some)
        metrics = {"observation/drift_kl": mean_over(jnp.mean(before.kl_divergence(after)), AXIS)}
        network = self.agent.policy_network
        if network.precision != "highest":
            exact = network.with_precision("highest")
            inputs = self.agent.policy_inputs(moved.observation_statistics, some)
            divergence = jnp.mean(after.kl_divergence(exact(moved.policy, inputs)))
            metrics["policy/precision_kl"] = mean_over(divergence, AXIS)
        return metrics


def unless_first(old: RunningStatistics, params: Any, folded: Any) -> Any:
    """`params` where `old` are statistics of nothing, and else `folded`.

    Statistics of nothing are no scale to hold on to, and the untrained policy says nearly the same
    of every observation on either scale.
    """
    return jax.tree.map(
        lambda p, f: p if p is f else jnp.where(old.count == 0, p, f), params, folded
    )
