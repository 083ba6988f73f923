"""Policy and value networks, and the running statistics that normalise what they read."""

from __future__ import annotations

import flax.linen as nn

from jtrust import checks
from jtrust.environments.base import ActionSpace, Bins, Discrete
from jtrust.networks.config import ACTIVATIONS, INITIALIZATIONS, PRECISIONS, NetworkConfig
from jtrust.networks.custom import custom_policy, custom_value
from jtrust.networks.custom_memory import custom_memory_policy, custom_memory_value
from jtrust.networks.mlp import (
    BinsPolicy,
    CategoricalPolicy,
    FeedForward,
    GaussianPolicy,
    Value,
)
from jtrust.networks.protocol import Network, PolicyNetwork, ValueNetwork
from jtrust.networks.recurrent import recurrent
from jtrust.networks.running_statistics import RunningStatistics, target_scale
from jtrust.networks.sequence import Carries

__all__ = [
    "ACTIVATIONS", "INITIALIZATIONS", "PRECISIONS", "Carries", "Network", "NetworkConfig",
    "PolicyNetwork", "RunningStatistics", "ValueNetwork", "has_memory", "make_policy_network",
    "make_value_network", "target_scale",
]


def has_memory(config: NetworkConfig, custom: nn.Module | None = None) -> bool:
    """Whether a network remembers: ours by its configuration, a user's own by `initial_carry`."""
    return config.memory is not None if custom is None else hasattr(custom, "initial_carry")


def _check_memory(name: str, config: NetworkConfig, custom: nn.Module) -> None:
    """Raises `BadArgument` where a memory is asked for that a module of the user's own has not."""
    if config.memory is not None and not has_memory(config, custom):
        raise checks.BadArgument(
            "memory", config.memory,
            f"{name} {type(custom).__name__} has none: give it initial_carry(batch_shape) and call "
            "it with (carry, observations), or leave memory out",
        )


def make_policy_network(
    config: NetworkConfig, inputs: int, action: ActionSpace, custom: nn.Module | None = None,
    on_cpu: bool = False,
) -> PolicyNetwork:
    """The policy network for a space of actions.

    Args:
      config: shape and precision.
      inputs: O, numbers in an observation.
      action: the space of actions.
      custom: a module of the user's own in place of ours.
      on_cpu: whether it is trained on CPUs.

    Raises:
      BadArgument: a module that will not do, with why.
    """
    if custom is not None:
        _check_memory("policy_network", config, custom)
        if has_memory(config, custom):
            return custom_memory_policy(custom, inputs, action, config.precision)
        return custom_policy(custom, inputs, action, config.precision)
    behind = 0 if config.memory is None else 1
    if isinstance(action, Discrete):
        module: nn.Module = CategoricalPolicy(config, action.n, on_cpu, behind)
    elif isinstance(action, Bins):
        module = BinsPolicy(config, action.size, action.bins, on_cpu, behind)
    else:
        module = GaussianPolicy(config, action.size, on_cpu, behind)
    if config.memory is not None:
        return recurrent(config, inputs, config.policy_layers, module)
    return FeedForward(module, config.precision)


def make_value_network(
    config: NetworkConfig, inputs: int, custom: nn.Module | None = None, on_cpu: bool = False
) -> ValueNetwork:
    """The value network; arguments and errors as for `make_policy_network`."""
    if custom is not None:
        _check_memory("value_network", config, custom)
        if has_memory(config, custom):
            return custom_memory_value(custom, inputs, config.precision)
        return custom_value(custom, inputs, config.precision)
    if config.memory is not None:
        return recurrent(config, inputs, config.value_layers, Value(config, on_cpu, 1))
    return FeedForward(Value(config, on_cpu), config.precision)
