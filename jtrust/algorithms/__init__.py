"""From a batch of experience to the next policy."""

from jtrust.algorithms.base import Algorithm
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.ppo import PPO, PPOPenalty
from jtrust.algorithms.trpo import NPG, TRPO
from jtrust.algorithms.value import fit_values, init_value_optimizer

ALGORITHMS = {cls.name: cls for cls in (TRPO, NPG, PPO, PPOPenalty)}

__all__ = [
    "ALGORITHMS", "NPG", "PPO", "TRPO", "Algorithm", "Batch", "PPOPenalty", "fit_values",
    "init_value_optimizer",
]
