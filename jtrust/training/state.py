"""Everything that training carries from one iteration to the next."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jtrust.environments.batch import Episodes
from jtrust.networks import RunningStatistics
from jtrust.training.signal import RewardsSeen


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The whole state of a run; restored, training goes on as if it had never stopped.

    Attributes:
      policy: parameters of the policy network.
      value: parameters of the value network.
      policy_optimizer: what the algorithm carries (PPO: Adam's moments; TRPO: nothing).
      value_optimizer: Adam's moments.
      observation_statistics: what observations are normalised by; part of the policy.
      target_statistics: scale of the value network's output, over recent batches.
      episodes: the environments, sharded over the mesh, [N, ...]; zeros before the first
        iteration, which begins them.
      last_episodes: mean return and length of the episodes that ended in the last iteration in
        which any did; 0 before.
      rewards_seen: what the rewards were so far.
      key: the run's random key; never changes, iterations fold their number in.
      iteration: iterations done, int32 [].
      costs: of the costs that have limits, a `training.costs.CostState`; () without any.
    """

    policy: Any
    value: Any
    policy_optimizer: Any
    value_optimizer: Any
    observation_statistics: RunningStatistics
    target_statistics: RunningStatistics
    episodes: Episodes
    last_episodes: dict[str, jax.Array]
    rewards_seen: RewardsSeen
    key: jax.Array
    iteration: jax.Array
    costs: Any = ()
