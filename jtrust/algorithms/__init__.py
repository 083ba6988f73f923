"""From a batch of experience to the next policy."""

from jtrust.algorithms.actor_critic import ActorCritic
from jtrust.algorithms.base import Algorithm
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.ppo import PPO, PPOPenalty
from jtrust.algorithms.trpl import TRPL
from jtrust.algorithms.trpo import NPG, TRPO
from jtrust.algorithms.value_fit import ValueFit

ALGORITHMS = {cls.name: cls for cls in (TRPO, NPG, PPO, PPOPenalty, TRPL)}

__all__ = [
    "ALGORITHMS", "NPG", "PPO", "TRPL", "TRPO", "ActorCritic", "Algorithm", "Batch", "PPOPenalty",
    "ValueFit",
]
