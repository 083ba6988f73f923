"""jtrust: trust-region reinforcement learning, compiled end to end with JAX."""

from jtrust.startup import collector_paused
from jtrust.version import __version__

with collector_paused():
    from jtrust import advantages, distributions, presets, trust_region
    from jtrust.advantages import GAE
    from jtrust.algorithms import (
        CPO,
        NPG,
        PPO,
        TRPL,
        TRPO,
        Algorithm,
        PPOLagrangian,
        PPOPenalty,
        TRPOLagrangian,
        ValueFit,
    )
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
    "CPO", "GAE", "NPG", "PPO", "TRPL", "TRPO", "Algorithm", "BadArgument", "Bins", "Box",
    "Discrete", "Environment", "IterationInfo", "NetworkConfig", "PPOLagrangian", "PPOPenalty",
    "Policy", "Result", "Sink", "TRPOLagrangian", "TrainState", "Trainer", "TrainingFailed",
    "ValueFit", "__version__", "advantages", "compare", "describe", "distributions", "evaluate",
    "export", "load_policy", "make_env", "make_trainer", "plan", "presets", "render", "report",
    "resume", "resume_many", "train", "train_many", "trust_region", "wrappers",
]

# What few programs use is imported when it is used.
_LATER = {
    "compare": "jtrust.sweeps", "export": "jtrust.deploy.export", "plan": "jtrust.planning",
    "render": "jtrust.deploy.render", "report": "jtrust.reporting",
    "resume_many": "jtrust.sweeps", "train_many": "jtrust.sweeps",
}


def __getattr__(name):
    if name in _LATER:
        import importlib

        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
