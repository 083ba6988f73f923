"""From a batch of experience to the next policy."""

from jtrust.algorithms.actor_critic import ActorCritic
from jtrust.algorithms.base import Algorithm
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.cpo import CPO
from jtrust.algorithms.lagrangian import PPOLagrangian, TRPOLagrangian
from jtrust.algorithms.ppo import PPO, PPOPenalty
from jtrust.algorithms.trpl import TRPL
from jtrust.algorithms.trpo import NPG, TRPO
from jtrust.algorithms.value_fit import ValueFit

ALGORITHMS = {
    cls.name: cls for cls in (
        TRPO, NPG, PPO, PPOPenalty, TRPL, CPO, TRPOLagrangian, PPOLagrangian
    )
}

__all__ = [
    "ALGORITHMS", "CPO", "NPG", "PPO", "TRPL", "TRPO", "ActorCritic", "Algorithm", "Batch",
    "PPOLagrangian", "PPOPenalty", "TRPOLagrangian", "ValueFit",
]
