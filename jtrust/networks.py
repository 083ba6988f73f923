"""Policy and value networks: two separate multilayer perceptrons on normalised observations.

`Network` is the one place where a network is applied, and so where its precision is decided.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.distributions import Categorical, Categoricals, DiagonalGaussian, TanhGaussian
from jtrust.environments.base import ActionSpace, Bins, Discrete

ACTIVATIONS = {"tanh": nn.tanh, "relu": nn.relu, "elu": nn.elu, "swish": nn.swish, "gelu": nn.gelu}


def _uniform(scale: float, mode: str) -> Callable[[float], nn.initializers.Initializer]:
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

# Names of the layers next to the normalisers, where a change of statistics is folded in.
INPUT_LAYER = "input"
OUTPUT_LAYER = "output"
# Name of a parameter that is the policy's deviation in all states.
DEVIATION = "log_std"


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
        checks.one_of("precision", self.precision, PRECISIONS)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network with the one precision of whatever is computed with it.

    Left to themselves a TPU rounds the inputs of float32 products to bfloat16 and a GPU to TF32,
    and the policy that acts, the one whose KL divergence is measured and the one that takes up
    new statistics are then different functions. The precision is written into each product where
    it is traced, so derivatives, Fisher products included, inherit it, and physics keeps its own.

    Attributes:
      module: a flax.linen module, ours or the user's (`jtrust.own_networks`).
      precision: one of `PRECISIONS`.
    """

    module: Any
    precision: str = "highest"

    def init(self, key: jax.Array, x: jax.Array) -> Any:
        """Parameters; `x` is one normalised observation, [O]."""
        with jax.default_matmul_precision(self.precision):
            return self.module.init(key, x)

    def apply(self, params: Any, x: jax.Array) -> Any:
        """What the network says of normalised observations [..., O]."""
        with jax.default_matmul_precision(self.precision):
            return self.module.apply(params, x)


class MLP(nn.Module):
    """Dense layers; the first and the last carry the names that folding looks for.

    Attributes:
      layers: hidden layer sizes.
      outputs: size of the output.
      activation: one of `ACTIVATIONS`.
      initialization: one of `INITIALIZATIONS`.
      output_gain: of the last layer's initialiser.
      on_cpu: whether to compute the last layer as a CPU has it fastest (`narrow_product`).
    """

    layers: tuple[int, ...]
    outputs: int
    activation: str
    initialization: str
    output_gain: float
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        act = ACTIVATIONS[self.activation]
        hidden_gain, init = INITIALIZATIONS[self.initialization]
        for i, size in enumerate(self.layers):
            name = INPUT_LAYER if i == 0 else f"hidden_{i}"
            x = act(nn.Dense(size, name=name, kernel_init=init(hidden_gain))(x))
        return nn.Dense(
            self.outputs, name=OUTPUT_LAYER, kernel_init=init(self.output_gain),
            dot_general=narrow_product if self.on_cpu else None,
        )(x)


def narrow_product(
    x: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, **_
) -> jax.Array:
    """x @ kernel, [..., I] and [I, O], for few outputs O.

    The kernel's gradient is a product over all states. XLA's CPU takes it four times faster as
    yᵀx, [O, I], than as xᵀy, [I, O]; the barrier keeps it from putting one for the other.
    """
    transposed = jax.lax.optimization_barrier(kernel.T)
    return jax.lax.dot_general(x, transposed, (((x.ndim - 1,), (1,)), ((), ())), precision)


def _policy_mlp(config: NetworkConfig, outputs: int, on_cpu: bool) -> MLP:
    # A gain of 0.01: the first policy is nearly the same everywhere, so what it learns first
    # comes from returns and not from its random start.
    return MLP(
        config.policy_layers, outputs, config.activation, config.initialization, 0.01, on_cpu,
        name="mlp",
    )


class GaussianPolicy(nn.Module):
    """Normalised observation [..., O] -> Gaussian over [..., A]."""

    config: NetworkConfig
    action_size: int
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> DiagonalGaussian:
        config = self.config
        size = self.action_size
        start = float(np.log(config.initial_std - config.min_std))
        if config.state_dependent_std:
            mean, raw = jnp.split(_policy_mlp(config, 2 * size, self.on_cpu)(x), 2, axis=-1)
            raw = start + raw
        else:
            mean = _policy_mlp(config, size, self.on_cpu)(x)
            raw = self.param(DEVIATION, nn.initializers.constant(start), (size,), jnp.float32)
        log_std = jnp.log(config.min_std + jnp.exp(raw))
        distribution = TanhGaussian if config.squash else DiagonalGaussian
        return distribution(mean, jnp.broadcast_to(log_std, mean.shape))


class CategoricalPolicy(nn.Module):
    """Normalised observation [..., O] -> logits over K actions, [..., K]."""

    config: NetworkConfig
    actions: int
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> Categorical:
        return Categorical(_policy_mlp(self.config, self.actions, self.on_cpu)(x))


class BinsPolicy(nn.Module):
    """Normalised observation [..., O] -> logits over K bins of A dimensions, [..., A, K]."""

    config: NetworkConfig
    action_size: int
    bins: int
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> Categoricals:
        logits = _policy_mlp(self.config, self.action_size * self.bins, self.on_cpu)(x)
        return Categoricals(logits.reshape(*logits.shape[:-1], self.action_size, self.bins))


class ValueNetwork(nn.Module):
    """Normalised observation [..., O] -> value on the targets' running scale, [...]."""

    config: NetworkConfig
    on_cpu: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        network = MLP(
            config.value_layers, 1, config.activation, config.initialization, 1.0, self.on_cpu,
            name="mlp",
        )
        return network(x)[..., 0]


def make_policy_network(
    config: NetworkConfig, action: ActionSpace, own: Any = None, on_cpu: bool = False
) -> Network:
    """The policy network for a space of actions.

    Args:
      config: shape and precision.
      action: the space of actions.
      own: a network of the user's own (`jtrust.own_networks.own_policy`), in place of ours.
      on_cpu: whether it is trained on CPUs.
    """
    if own is not None:
        module = own
    elif isinstance(action, Discrete):
        module = CategoricalPolicy(config, action.n, on_cpu)
    elif isinstance(action, Bins):
        module = BinsPolicy(config, action.size, action.bins, on_cpu)
    else:
        module = GaussianPolicy(config, action.size, on_cpu)
    return Network(module, config.precision)


def make_value_network(config: NetworkConfig, own: Any = None, on_cpu: bool = False) -> Network:
    """The value network; arguments as for `make_policy_network`."""
    return Network(own if own is not None else ValueNetwork(config, on_cpu), config.precision)


def with_layer(params: Any, name: str, layer: dict[str, jax.Array]) -> Any:
    """`params` of one of these networks with one layer next to a normaliser replaced."""
    if "module" in params:  # a user's own module; the layers are beside it
        return {**params, name: layer}
    inner = params["params"]
    return {"params": {**inner, "mlp": {**inner["mlp"], name: layer}}}


def get_layer(params: Any, name: str) -> dict[str, jax.Array]:
    """One layer next to a normaliser, of the `params` of one of these networks."""
    if "module" in params:
        return params[name]
    return params["params"]["mlp"][name]
