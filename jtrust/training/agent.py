"""What acts and judges: the networks of a run on what its environment tells."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.networks import PolicyNetwork, RunningStatistics, ValueNetwork, target_scale
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
        """The distribution over actions at raw observations [..., O], or a dictionary of them."""
        return self.policy_network(params, self.policy_inputs(statistics, observation))

    def policy_inputs(self, statistics: RunningStatistics, observation: Any) -> jax.Array:
        """What the policy network reads of raw observations, [..., O]."""
        key = self.environment.policy_key
        return statistics.at(key).normalize(select(observation, key))

    def values(self, state: TrainState, observation: Any) -> jax.Array:
        """Values in units of reward at raw observations [..., O], or a dictionary of them."""
        mean, std = target_scale(state.target_statistics)
        inputs = self.value_inputs(state.observation_statistics, observation)
        return mean + std * self.value_network(state.value, inputs)

    def value_inputs(self, statistics: RunningStatistics, observation: Any) -> jax.Array:
        """What the value network reads of raw observations, [..., V]."""
        key = self.environment.value_key
        return statistics.at(key).normalize(select(observation, key))

    def scaled_targets(self, state: TrainState, targets: jax.Array) -> jax.Array:
        """Value targets in units of reward on the value network's output scale."""
        mean, std = target_scale(state.target_statistics)
        return (targets - mean) / std
