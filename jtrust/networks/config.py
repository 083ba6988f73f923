"""The shape of the two networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import flax.linen as nn

from jtrust import checks

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "elu": nn.elu, "swish": nn.swish, "gelu": nn.gelu}


def _uniform(
    scale: float, mode: Literal["fan_in", "fan_avg"]
) -> Callable[[float], nn.initializers.Initializer]:
    return lambda gain: nn.initializers.variance_scaling(gain**2 * scale, mode, "uniform")


# By name: the gain of hidden layers, and gain -> initialiser of a kernel.
INITIALIZATIONS = {
    "orthogonal": (2**0.5, nn.initializers.orthogonal),
    "lecun_uniform": (1.0, _uniform(1.0, "fan_in")),
    "xavier_uniform": (1.0, _uniform(1.0, "fan_avg")),
    "he_uniform": (1.0, _uniform(2.0, "fan_in")),
}

# Of products of matrices, by the names of `jax.lax.Precision`.
PRECISIONS = ("highest", "high", "default")

# What a network may remember by; `jtrust.networks.recurrent` makes them.
MEMORIES = ("gru", "lstm", "s5")
_LARGEST_MEMORY = 65536


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Shape of the two networks.

    Attributes:
      policy_layers: hidden layer sizes of the policy.
      value_layers: hidden layer sizes of the value function.
      activation: one of `ACTIVATIONS`.
      initialization: of the kernels, one of `INITIALIZATIONS`; whichever it is, the last layer of
        the policy starts a hundred times smaller.
      initial_std: standard deviation of a Gaussian policy before training, in units of half the
        action range.
      min_std: standard deviation below which a Gaussian policy never falls, in the same units.
        Trust-region steps have a fixed length, so once a task is solved they follow what little
        advantage is left, which rewards less noise; without a floor the deviation falls by a
        constant factor per update until gradients mean nothing.
      squash: tanh of the Gaussian, instead of a Gaussian whose actions are clipped on their way
        to the environment.
      state_dependent_std: a standard deviation for each state, by the network of the mean, instead
        of one for all states.
      memory: what both networks remember an episode by, behind their first hidden layer: "gru",
        "lstm" or "s5", or None for networks that read one observation; docs/do/memory.md.
      memory_size: numbers that it remembers in each layer of state.
      change_gain: what networks with memory multiply changes of the normalised observation since
        the step before by, which they read beside it; 0 to leave them out. None for 0.2 seconds
        over the environment's time step, or 1 where it tells none.
      precision: of all products of matrices in both networks, one of `PRECISIONS`: "highest" is
        full float32 on every device; "high" is three bfloat16 passes on a TPU and TF32 on a GPU;
        "default" is what the device is fastest at, one bfloat16 pass on a TPU. With less than
        "highest" a KL divergence is known no better than to `policy/precision_kl`.
    """

    policy_layers: tuple[int, ...] = (64, 64)
    value_layers: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initialization: str = "orthogonal"
    initial_std: float = 1.0
    min_std: float = 0.05
    squash: bool = False
    state_dependent_std: bool = False
    memory: str | None = None
    memory_size: int = 64
    change_gain: float | None = None
    precision: str = "highest"

    def __post_init__(self):
        for name in ("policy_layers", "value_layers"):
            sizes = getattr(self, name)
            if not isinstance(sizes, (tuple, list)) or not sizes:
                raise checks.BadArgument(name, sizes, "must be layer sizes, such as (64, 64)")
            for size in sizes:
                checks.whole_number(name, size, maximum=65536, example=64)
            object.__setattr__(self, name, tuple(int(size) for size in sizes))
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.one_of("initialization", self.initialization, INITIALIZATIONS)
        checks.real_number("initial_std", self.initial_std, above=0, maximum=100, example=1.0)
        checks.real_number("min_std", self.min_std, minimum=0, maximum=100, example=0.05)
        if self.min_std >= self.initial_std:
            raise checks.BadArgument(
                "min_std", self.min_std, f"must be below initial_std, {self.initial_std}"
            )
        checks.truth_value("squash", self.squash)
        checks.truth_value("state_dependent_std", self.state_dependent_std)
        if self.memory is not None:
            checks.one_of("memory", self.memory, MEMORIES)
        checks.whole_number(
            "memory_size", self.memory_size, maximum=_LARGEST_MEMORY, example=64
        )
        if self.memory == "s5" and self.memory_size % 2:
            raise checks.BadArgument(
                "memory_size", self.memory_size,
                "must be even for s5, whose states are complex numbers, such as 64",
            )
        if self.change_gain is not None:
            checks.real_number("change_gain", self.change_gain, minimum=0, maximum=1e4, example=20)
        checks.one_of("precision", self.precision, PRECISIONS)
