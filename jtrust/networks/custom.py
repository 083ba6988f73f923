"""Policy and value networks of the user's own: any flax.linen module."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.distributions import Categorical
from jtrust.environments.base import ActionSpace, Bins, Box, Discrete
from jtrust.networks.protocol import Memoryless, Params, named, names_of
from jtrust.networks.running_statistics import RunningStatistics, fold_affine, fold_output

_INTERFACE = (
    "sample", "log_prob", "entropy", "mode", "kl_divergence", "fisher", "broadcast", "batch_shape"
)
_BATCH = (5, 3)  # leading axes that a module is tried with; it meets one, two and none


class _Custom(Memoryless):
    """A module behind a layer of ours, scale * x + shift, that takes up new statistics.

    A module may do anything with its inputs, so a change of the normaliser cannot be folded into
    its weights; it is folded into the layer before it. Having no gradient, that layer is moved by
    no algorithm.
    """

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        return {
            "module": self.module.init(key, x),
            "input": {"scale": jnp.ones_like(x), "shift": jnp.zeros_like(x)},
        }

    def _of_module(self, params: Params, x: jax.Array) -> Any:
        layer = jax.lax.stop_gradient(params["input"])
        return self.module.apply(params["module"], layer["scale"] * x + layer["shift"])

    def fold_input(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return {**params, "input": fold_affine(params["input"], old, new)}


class CustomPolicy(_Custom):
    """The module's distribution over actions."""

    def _outputs(self, params: Params, x: jax.Array) -> Any:
        return self._of_module(params, x).broadcast()

    def deviation(self, params: Params) -> Params:
        """Parameters named as the module's `deviation_parameters` says; `log_std` by default."""
        names = getattr(self.module, "deviation_parameters", None)
        return named(params, ("log_std",) if names is None else tuple(names))


class CustomValue(_Custom):
    """The module's value on the targets' scale, by a layer kernel * v + bias behind it.

    That layer takes up changes of the targets' scale, and it learns: returns grow by orders of
    magnitude while the policy improves, and a constant would leave the module to make up for it.
    """

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        output = {"kernel": jnp.ones((), jnp.float32), "bias": jnp.zeros((), jnp.float32)}
        return {**super()._init(key, x), "output": output}

    def _outputs(self, params: Params, x: jax.Array) -> jax.Array:
        layer = params["output"]
        return layer["kernel"] * self._of_module(params, x) + layer["bias"]

    def fold_output(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return self.with_output_layer(params, fold_output(self.output_layer(params), old, new))

    def output_layer(self, params: Params) -> dict[str, jax.Array]:
        return params["output"]

    def with_output_layer(self, params: Params, layer: dict[str, jax.Array]) -> Params:
        return {**params, "output": layer}


def custom_policy(
    module: nn.Module, inputs: int, action: ActionSpace, precision: str = "highest"
) -> CustomPolicy:
    """A user's policy network, ready to be trained.

    Nothing is computed: shapes are found by abstract evaluation.

    Args:
      module: normalised observations [..., O] -> a distribution of `jtrust.distributions`, or one
        with the same interface.
      inputs: O.
      action: the space of actions.
      precision: as for `NetworkConfig`.

    Raises:
      BadArgument: no module, parameters that cannot be trained, or another space of actions.
    """
    name = "policy_network"
    variables = _check_parameters(name, module, inputs)
    found: dict[str, Any] = {}
    given = _abstract(
        name, module, functools.partial(_try_policy, module, found), variables,
        _tried_with(inputs), jax.eval_shape(lambda: jax.random.key(0)),
    )
    what = type(found["distribution"]).__name__
    if found["missing"]:
        raise checks.BadArgument(
            name, _name_of(module),
            f"must return a distribution, such as those of jtrust.distributions; {what} has no "
            + ", ".join(found["missing"]),
        )
    if found["types"] != ["float32"]:
        raise checks.BadArgument(
            name, _name_of(module),
            f"must return a distribution that is a pytree of float32 arrays; this {what} holds "
            + ", ".join(found["types"]),
        )
    _check_actions(module, inputs, action, found, *given)
    check_names(module, variables, "deviation_parameters", lambda path: names_of(path)[-1:])
    return CustomPolicy(module, precision)


def check_names(
    module: nn.Module, variables: Any, attribute: str,
    of: Callable[[tuple[Any, ...]], tuple[str, ...]],
) -> None:
    """Raises `BadArgument` where a module names what it has not.

    Args:
      module: the user's.
      variables: its parameters.
      attribute: of the module, a tuple of names; it need not have one.
      of: the names that the parameter at a path goes by.
    """
    names = getattr(module, attribute, None)
    if names is None:
        return
    paths = jax.tree_util.tree_leaves_with_path(variables)
    there = sorted({name for path, _ in paths for name in of(path)})
    if isinstance(names, str) or not set(names) <= set(there):
        raise checks.BadArgument(
            attribute, names,
            f"must be a tuple of names of {_name_of(module)}'s parameters: {', '.join(there)}",
        )


def _try_policy(
    module: nn.Module, found: dict[str, Any], variables: Any, x: jax.Array, key: jax.Array
) -> Any:
    """(actions, modes, numbers by name) of a module, and what its distribution is in `found`."""
    distribution: Any = module.apply(variables, x)
    found["distribution"] = distribution
    found["missing"] = [part for part in _INTERFACE if not hasattr(distribution, part)]
    leaves = jax.tree.leaves(distribution)
    found["types"] = sorted({str(getattr(x, "dtype", type(x).__name__)) for x in leaves})
    if found["missing"] or found["types"] != ["float32"]:
        return None
    distribution = distribution.broadcast()
    found["batch_shape"] = distribution.batch_shape
    if isinstance(distribution, Categorical):
        found["logits"] = distribution.logits.shape[len(_BATCH):]
    action = distribution.sample(key)
    numbers = {
        "entropy": distribution.entropy(),
        "kl_divergence": distribution.kl_divergence(distribution),
        "log_prob": distribution.log_prob(action),
    }
    return action, distribution.mode(), numbers


def _check_actions(
    module: nn.Module, inputs: int, action: ActionSpace, found: dict[str, Any], actions: Any,
    modes: Any, numbers: dict[str, Any],
) -> None:
    """Raises `BadArgument` where a distribution is not one over the space of actions."""
    shape, kind, logits, wanted = {
        Box: lambda a: (
            (a.size,), jnp.floating, None, f"actions [..., {a.size}], such as a DiagonalGaussian"
        ),
        Bins: lambda a: (
            (a.size,), jnp.integer, (a.size, a.bins), f"logits [..., {a.size}, {a.bins}], as of a "
            f"MultiCategorical"
        ),
        Discrete: lambda a: (
            (), jnp.integer, (a.n,), f"logits [..., {a.n}], as of a Categorical"
        ),
    }[type(action)](action)
    good = (
        found["batch_shape"] == _BATCH
        and all(x.shape == _BATCH for x in numbers.values())
        and actions.shape == modes.shape == _BATCH + shape
        and jnp.issubdtype(actions.dtype, kind)
        and found.get("logits", logits) == logits
    )
    if not good:
        of_logits = f", logits {(*_BATCH, *found['logits'])}" if "logits" in found else ""
        raise checks.BadArgument(
            "policy_network", _name_of(module),
            f"must return a distribution with {wanted}; of observations {(*_BATCH, inputs)} it "
            f"makes a {type(found['distribution']).__name__} with batch shape "
            f"{found['batch_shape']}{of_logits} and {actions.dtype} actions {actions.shape}",
        )


def custom_value(module: nn.Module, inputs: int, precision: str = "highest") -> CustomValue:
    """A user's value network, ready to be trained.

    Args:
      module: normalised observations [..., O] -> values [...].
      inputs: O.
      precision: as for `NetworkConfig`.

    Raises:
      BadArgument: no module, parameters that cannot be trained, or values of another shape.
    """
    name = "value_network"
    variables = _check_parameters(name, module, inputs)
    value = _abstract(name, module, module.apply, variables, _tried_with(inputs))
    if getattr(value, "shape", None) != _BATCH or value.dtype != jnp.float32:
        last = "; drop its last axis, as by [..., 0]"
        shape = getattr(value, "shape", None)
        raise checks.BadArgument(
            name, _name_of(module),
            f"must return one float32 value per observation, {_BATCH} of observations "
            f"{(*_BATCH, inputs)}; it returns "
            + (type(value).__name__ if shape is None else f"{value.dtype} {shape}")
            + last * (shape == (*_BATCH, 1)),
        )
    return CustomValue(module, precision)


def _name_of(module: nn.Module) -> str:
    """The user's class."""
    return getattr(module, "own_name", type(module).__name__)


def _tried_with(inputs: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*_BATCH, inputs), jnp.float32)


def _check_parameters(name: str, module: Any, inputs: int) -> Any:
    """The shapes of a module's variables."""
    if not isinstance(module, nn.Module):
        raise checks.BadArgument(name, module, "must be a flax.linen module (an instance)")
    kind = _name_of(module)
    variables = _abstract(
        name, module, module.init, jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((inputs,), jnp.float32),
    )
    others = sorted(set(variables) - {"params"})
    if others:
        raise checks.BadArgument(
            name, kind, f"must hold parameters alone; it also has {', '.join(others)}"
        )
    leaves = jax.tree.leaves(variables)
    if not sum(math.prod(x.shape) for x in leaves):
        raise checks.BadArgument(name, kind, "has no parameters to train")
    types = sorted({str(x.dtype) for x in leaves} - {"float32"})
    if types:
        raise checks.BadArgument(
            name, kind, f"has {types[0]} parameters; keep them in float32 (param_dtype)"
        )
    return variables


def _abstract(name: str, module: nn.Module, function: Any, *args: Any) -> Any:
    try:
        return jax.eval_shape(function, *args)
    except Exception as error:  # a user's code raises what it likes
        message = str(error).strip().splitlines() or [""]
        shapes = [x.shape for x in args if getattr(x, "shape", ())]
        raise checks.BadArgument(
            name, _name_of(module),
            f"must take observations of any leading axes; for {shapes[-1]} it raised "
            f"{type(error).__name__}: {message[0][:200]}",
        ) from error
