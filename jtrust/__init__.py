"""jtrust: trust-region reinforcement learning, compiled end to end with JAX."""

from jtrust.startup import collector_paused
from jtrust.version import __version__

with collector_paused():
    from jtrust import advantages, distributions, trust_region
    from jtrust.advantages import GAE
    from jtrust.algorithms import NPG, PPO, TRPO, Algorithm, PPOPenalty, ValueFit
    from jtrust.checks import BadArgument, TrainingFailed
    from jtrust.environments import (
        Bins,
        Box,
        Discrete,
        Environment,
        describe,
        make_env,
        wrappers,
    )
    from jtrust.networks import NetworkConfig
    from jtrust.policy import Policy
    from jtrust.runs import (
        IterationInfo,
        Result,
        Sink,
        evaluate,
        load_policy,
        resume,
        train,
    )
    from jtrust.training import Trainer, TrainState, make_trainer

__all__ = [
    "GAE", "NPG", "PPO", "TRPO", "Algorithm", "BadArgument", "Bins", "Box", "Discrete",
    "Environment", "IterationInfo", "NetworkConfig", "PPOPenalty", "Policy", "Result", "Sink",
    "TrainState", "Trainer", "TrainingFailed", "ValueFit", "__version__", "advantages", "describe",
    "distributions", "evaluate", "load_policy", "make_env", "make_trainer", "plan", "render",
    "resume", "train", "trust_region", "wrappers",
]


def __getattr__(name):
    # What few programs use is imported when it is used.
    if name == "plan":
        from jtrust.planning import plan

        return plan
    if name == "render":
        from jtrust.deploy import render

        return render
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
