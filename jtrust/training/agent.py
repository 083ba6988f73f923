"""What acts and judges: the networks of a run on what its environment tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.networks import Carries, PolicyNetwork, RunningStatistics, ValueNetwork, target_scale
from jtrust.networks.sequence import of_observations, where_begins
from jtrust.training.rollout import Trajectory
from jtrust.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
    """Policy and values at raw observations; pure.

    Attributes:
      environment: whose observations they read.
      policy_network: normalised observations -> distributions over actions.
      value_network: normalised observations -> values on the targets' scale.
    """

    environment: Environment
    policy_network: PolicyNetwork
    value_network: ValueNetwork

    def policy(self, params: Any, statistics: RunningStatistics, observation: Any) -> Any:
        """The distribution over actions at raw observations [..., O], or a dictionary of them; or
        at a sequence of such, [T N, ...]."""
        return self.policy_network(params, self.policy_inputs(statistics, observation))

    def policy_inputs(self, statistics: RunningStatistics, observation: Any) -> jax.Array:
        """What the policy network reads of raw observations, [..., O]; or of a sequence of such."""
        key = self.environment.policy_key
        normalize = statistics.at(key).normalize
        return of_observations(lambda x: normalize(select(x, key)), observation)

    def values(self, state: TrainState, observation: Any) -> jax.Array:
        """Values in units of reward at raw observations [..., O], or a dictionary of them."""
        mean, std = target_scale(state.target_statistics)
        inputs = self.value_inputs(state.observation_statistics, observation)
        return mean + std * self.value_network(state.value, inputs)

    def initial_memory(self, batch_shape: tuple[int, ...] = ()) -> Carries:
        """What the networks remember where an episode begins, [*batch_shape, ...] each leaf."""
        return Carries(
            self.policy_network.initial_carry(batch_shape),
            self.value_network.initial_carry(batch_shape),
        )

    def act(self, state: TrainState, memory: Carries, observation: Any) -> tuple[Any, Carries]:
        """(the distribution over actions at raw observations [N, O], what is remembered then)."""
        inputs = self.policy_inputs(state.observation_statistics, observation)
        distribution, policy = self.policy_network.apply(state.policy, memory.policy, inputs)
        value = memory.value
        if jax.tree.leaves(value):
            inputs = self.value_inputs(state.observation_statistics, observation)
            _, value = self.value_network.apply(state.value, value, inputs)
        return distribution, Carries(policy, value)

    def values_after(self, state: TrainState, memory: Carries, observation: Any) -> jax.Array:
        """Values in units of reward at raw observations [..., O] that follow what is remembered."""
        mean, std = target_scale(state.target_statistics)
        inputs = self.value_inputs(state.observation_statistics, observation)
        values, _ = self.value_network.apply(state.value, memory.value, inputs)
        return mean + std * values

    def policy_sequence(self, trajectory: Trajectory) -> Any:
        """A rollout's raw observations, as `policy` takes them."""
        return self.policy_network.sequence(
            trajectory.memory.policy, trajectory.observation, trajectory.starts
        )

    def values_along(self, state: TrainState, trajectory: Trajectory) -> tuple[jax.Array, Carries]:
        """(values in units of reward of a rollout's observations [T, N], what is remembered behind
        its last step)."""
        mean, std = target_scale(state.target_statistics)
        inputs = self.value_inputs(state.observation_statistics, trajectory.observation)
        values, carry = self.value_network.unroll(
            state.value, trajectory.memory.value, inputs, trajectory.starts
        )
        initial = self.value_network.initial_carry()
        after = where_begins(trajectory.end[-1], initial, carry)
        return mean + std * values, Carries(value=after)

    def value_inputs(self, statistics: RunningStatistics, observation: Any) -> jax.Array:
        """What the value network reads of raw observations, [..., V]."""
        key = self.environment.value_key
        return statistics.at(key).normalize(select(observation, key))

    def scaled_targets(self, state: TrainState, targets: jax.Array) -> jax.Array:
        """Value targets in units of reward on the value network's output scale."""
        mean, std = target_scale(state.target_statistics)
        return (targets - mean) / std
