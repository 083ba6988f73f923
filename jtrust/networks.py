"""Policy and value networks: two separate multilayer perceptrons on normalised observations."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.distributions import Categorical, DiagonalGaussian, TanhGaussian
from jtrust.environments.base import ActionSpace, Discrete

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "elu": nn.elu, "swish": nn.swish, "gelu": nn.gelu}

# Names of the layers next to the normalisers, where a change of statistics is folded in.
INPUT_LAYER = "input"
OUTPUT_LAYER = "output"


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Shape of the two networks.

    Attributes:
      policy_layers: hidden layer sizes of the policy.
      value_layers: hidden layer sizes of the value function.
      activation: one of `ACTIVATIONS`.
      initial_std: standard deviation of a Gaussian policy before training, in units of half the
        action range.
      min_std: standard deviation below which a Gaussian policy never falls, in the same units.
        Trust-region steps have a fixed length, so once a task is solved they follow what little
        advantage is left, which rewards less noise; without a floor the deviation falls by a
        constant factor per update until gradients mean nothing.
      squash: tanh of the Gaussian, instead of a Gaussian whose actions are clipped on their way
        to the environment.
    """

    policy_layers: tuple[int, ...] = (64, 64)
    value_layers: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    initial_std: float = 1.0
    min_std: float = 0.05
    squash: bool = False

    def __post_init__(self):
        for name in ("policy_layers", "value_layers"):
            sizes = getattr(self, name)
            if not isinstance(sizes, (tuple, list)) or not sizes:
                raise checks.BadArgument(name, sizes, "must be layer sizes, such as (64, 64)")
            for size in sizes:
                checks.whole_number(name, size, maximum=65536, example=64)
            object.__setattr__(self, name, tuple(int(size) for size in sizes))
        checks.one_of("activation", self.activation, ACTIVATIONS)
        checks.real_number("initial_std", self.initial_std, above=0, maximum=100, example=1.0)
        checks.real_number("min_std", self.min_std, minimum=0, maximum=100, example=0.05)
        if self.min_std >= self.initial_std:
            raise checks.BadArgument(
                "min_std", self.min_std, f"must be below initial_std, {self.initial_std}"
            )
        checks.truth_value("squash", self.squash)


class MLP(nn.Module):
    """Dense layers; the first and the last carry the names that folding looks for."""

    layers: tuple[int, ...]
    outputs: int
    activation: str
    output_gain: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        for i, size in enumerate(self.layers):
            name = INPUT_LAYER if i == 0 else f"hidden_{i}"
            x = act(nn.Dense(size, name=name, kernel_init=nn.initializers.orthogonal(2**0.5))(x))
        init = nn.initializers.orthogonal(self.output_gain)
        return nn.Dense(self.outputs, name=OUTPUT_LAYER, kernel_init=init)(x)


class GaussianPolicy(nn.Module):
    """Normalised observation [..., O] -> Gaussian over [..., A]; one deviation for all states."""

    config: NetworkConfig
    action_size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> DiagonalGaussian:
        config = self.config
        # A gain of 0.01: the first policy is nearly the same everywhere, so what it learns first
        # comes from returns and not from its random start.
        network = MLP(config.policy_layers, self.action_size, config.activation, 0.01, name="mlp")
        mean = network(x)
        start = nn.initializers.constant(np.log(config.initial_std - config.min_std))
        raw = self.param("log_std", start, (self.action_size,), jnp.float32)
        log_std = jnp.log(config.min_std + jnp.exp(raw))
        distribution = TanhGaussian if config.squash else DiagonalGaussian
        return distribution(mean, jnp.broadcast_to(log_std, mean.shape))


class CategoricalPolicy(nn.Module):
    """Normalised observation [..., O] -> logits over K actions, [..., K]."""

    config: NetworkConfig
    actions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Categorical:
        config = self.config
        return Categorical(
            MLP(config.policy_layers, self.actions, config.activation, 0.01, name="mlp")(x)
        )


class ValueNetwork(nn.Module):
    """Normalised observation [..., O] -> value on the targets' running scale, [...]."""

    config: NetworkConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        return MLP(config.value_layers, 1, config.activation, 1.0, name="mlp")(x)[..., 0]


def make_policy_network(config: NetworkConfig, action: ActionSpace) -> nn.Module:
    """The policy network for a space of actions."""
    if isinstance(action, Discrete):
        return CategoricalPolicy(config, action.n)
    return GaussianPolicy(config, action.size)


def with_layer(params: Any, name: str, layer: dict[str, jax.Array]) -> Any:
    """`params` of one of these networks with one layer of its perceptron replaced."""
    inner = params["params"]
    return {"params": {**inner, "mlp": {**inner["mlp"], name: layer}}}


def get_layer(params: Any, name: str) -> dict[str, jax.Array]:
    """One layer of the perceptron inside `params`."""
    return params["params"]["mlp"][name]
