"""Multilayer perceptrons on normalised observations, for policies and values apart."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jtrust.distributions import Categorical, DiagonalGaussian, MultiCategorical, TanhGaussian
from jtrust.networks.config import ACTIVATIONS, INITIALIZATIONS, NetworkConfig
from jtrust.networks.protocol import Memoryless, Params, named, none_of
from jtrust.networks.running_statistics import RunningStatistics, fold_input, fold_output

# Names of the layers next to the normalisers, where a change of statistics is folded in.
_INPUT_LAYER, _OUTPUT_LAYER = "input", "output"
# Name of a parameter that is the policy's deviation in all states.
DEVIATION = "log_std"


class FeedForward(Memoryless):
    """One of the modules of this file."""

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        return self.module.init(key, x)

    def _outputs(self, params: Params, x: jax.Array) -> Any:
        return self.module.apply(params, x)

    def fold_input(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        layer = fold_input(_layer(params, _INPUT_LAYER), old, new)
        return _with_layer(params, _INPUT_LAYER, layer)

    def fold_output(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return self.with_output_layer(params, fold_output(self.output_layer(params), old, new))

    def output_layer(self, params: Params) -> dict[str, jax.Array]:
        return _layer(params, _OUTPUT_LAYER)

    def with_output_layer(self, params: Params, layer: dict[str, jax.Array]) -> Params:
        return _with_layer(params, _OUTPUT_LAYER, layer)

    def deviation(self, params: Params) -> Params:
        return named(params, (DEVIATION,))

    def reading_all_but(self, last: int, params: Params) -> Params:
        """Like `params`, bool: rows of the first kernel, [I, 1], that do not read the `last`
        inputs."""
        mask = none_of(params)
        first = _INPUT_LAYER if _INPUT_LAYER in params["params"]["mlp"] else _OUTPUT_LAYER
        inputs = _layer(params, first)["kernel"].shape[0]
        rows: Any = np.arange(inputs)[:, None] < inputs - last
        return _with_layer(mask, first, {**_layer(mask, first), "kernel": rows})


def _layer(params: Params, name: str) -> dict[str, jax.Array]:
    return params["params"]["mlp"][name]


def _with_layer(params: Params, name: str, layer: dict[str, jax.Array]) -> Params:
    inner = params["params"]
    return {"params": {**inner, "mlp": {**inner["mlp"], name: layer}}}


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
            name = _INPUT_LAYER if i == 0 else f"hidden_{i}"
            x = act(nn.Dense(size, name=name, kernel_init=init(hidden_gain))(x))
        return nn.Dense(
            self.outputs, name=_OUTPUT_LAYER, kernel_init=init(self.output_gain),
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


def _policy_mlp(config: NetworkConfig, outputs: int, on_cpu: bool, behind: int) -> MLP:
    # A gain of 0.01: the first policy is nearly the same everywhere, so what it learns first
    # comes from returns and not from its random start.
    return MLP(
        config.policy_layers[behind:], outputs, config.activation, config.initialization, 0.01,
        on_cpu, name="mlp",
    )


# `behind` of each: how many of the hidden layers stand before it, in a network with memory.


class GaussianPolicy(nn.Module):
    """Normalised observation [..., O] -> Gaussian over [..., A]."""

    config: NetworkConfig
    action_size: int
    on_cpu: bool = False
    behind: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> DiagonalGaussian:
        config = self.config
        size = self.action_size
        start = float(np.log(config.initial_std - config.min_std))
        if config.state_dependent_std:
            mean, raw = jnp.split(
                _policy_mlp(config, 2 * size, self.on_cpu, self.behind)(x), 2, axis=-1
            )
            raw = start + raw
        else:
            mean = _policy_mlp(config, size, self.on_cpu, self.behind)(x)
            raw = self.param(DEVIATION, nn.initializers.constant(start), (size,), jnp.float32)
        log_std = jnp.log(config.min_std + jnp.exp(raw))
        distribution = TanhGaussian if config.squash else DiagonalGaussian
        return distribution(mean, jnp.broadcast_to(log_std, mean.shape))


class CategoricalPolicy(nn.Module):
    """Normalised observation [..., O] -> logits over K actions, [..., K]."""

    config: NetworkConfig
    actions: int
    on_cpu: bool = False
    behind: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> Categorical:
        return Categorical(_policy_mlp(self.config, self.actions, self.on_cpu, self.behind)(x))


class BinsPolicy(nn.Module):
    """Normalised observation [..., O] -> logits over K bins of A dimensions, [..., A, K]."""

    config: NetworkConfig
    action_size: int
    bins: int
    on_cpu: bool = False
    behind: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> MultiCategorical:
        size = self.action_size * self.bins
        logits = _policy_mlp(self.config, size, self.on_cpu, self.behind)(x)
        return MultiCategorical(logits.reshape(*logits.shape[:-1], self.action_size, self.bins))


class Value(nn.Module):
    """Normalised observation [..., O] -> value on the targets' running scale, [...]."""

    config: NetworkConfig
    on_cpu: bool = False
    behind: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        config = self.config
        network = MLP(
            config.value_layers[self.behind:], 1, config.activation, config.initialization, 1.0,
            self.on_cpu, name="mlp",
        )
        return network(x)[..., 0]
