"""Policy and value networks of the user's own that remember.

Such a module has a method `initial_carry(batch_shape)`, what it remembers where an episode begins,
[*batch_shape, ...] each leaf, and is called with (carry, observations [..., O]) for one step; it
gives (a distribution, or values [...], the carry after it).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.environments.base import ActionSpace
from jtrust.networks.custom import (
    CustomPolicy,
    CustomValue,
    check_names,
    custom_policy,
    custom_value,
)
from jtrust.networks.protocol import Carry, Params, inside, names_of
from jtrust.networks.recurrent import WithMemory
from jtrust.networks.running_statistics import RunningStatistics

# Leading axes that a carry is tried with.
_BATCH = (5, 3)


class OneStep(nn.Module):
    """A user's module with memory, one step of it.

    Called, it begins an episode with each observation, so that it can be checked as a module
    without memory is.
    """

    module: nn.Module

    def __call__(self, x: jax.Array) -> Any:
        return self.step(self.initial_carry(x.shape[:-1]), x)[0]

    def step(self, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        return self.module(carry, x)  # type: ignore[operator]

    def initial_carry(self, batch_shape: tuple[int, ...]) -> Carry:
        return self.module.initial_carry(batch_shape)  # type: ignore[attr-defined]

    @property
    def own_name(self) -> str:
        """What to call it in errors: the user's class."""
        return type(self.module).__name__

    @property
    def deviation_parameters(self) -> tuple[str, ...] | None:
        """As the user's module says, if it does."""
        return getattr(self.module, "deviation_parameters", None)

    @property
    def memory_parameters(self) -> tuple[str, ...]:
        """As the user's module says, if it does."""
        return getattr(self.module, "memory_parameters", ())


@dataclasses.dataclass(frozen=True)
class CustomMemory(WithMemory):
    """A module with memory behind the layers of `memoryless`, which take up new statistics.

    Attributes:
      memoryless: its `OneStep`, in the layers that every module of the user's own has.
    """

    memoryless: CustomPolicy | CustomValue

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        return self.memoryless.module.module.initial_carry(batch_shape)  # type: ignore

    def fold_input(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return self.memoryless.fold_input(params, old, new)

    def fold_output(
        self, params: Params, old: RunningStatistics, new: RunningStatistics
    ) -> Params:
        return self.memoryless.fold_output(params, old, new)  # type: ignore[union-attr]

    def output_layer(self, params: Params) -> dict[str, jax.Array]:
        return self.memoryless.output_layer(params)  # type: ignore[union-attr]

    def with_output_layer(self, params: Params, layer: dict[str, jax.Array]) -> Params:
        return self.memoryless.with_output_layer(params, layer)  # type: ignore[union-attr]

    def deviation(self, params: Params) -> Params:
        return self.memoryless.deviation(params)  # type: ignore[union-attr]

    def of_memory(self, params: Params) -> Params:
        """Those that the module's `memory_parameters` names, or that are in a module so named."""
        return inside(params, tuple(self.memoryless.module.memory_parameters))  # type: ignore

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        return self.memoryless.init(key, x)

    def _step(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        layer = jax.lax.stop_gradient(params["input"])
        inputs = layer["scale"] * x + layer["shift"]
        module = self.memoryless.module
        said, carry = module.apply(params["module"], carry, inputs, method="step")  # type: ignore
        if isinstance(self.memoryless, CustomPolicy):
            return said.broadcast(), carry
        output = params["output"]
        return output["kernel"] * said + output["bias"], carry


def custom_memory_policy(
    module: nn.Module, inputs: int, action: ActionSpace, precision: str = "highest"
) -> CustomMemory:
    """A user's policy network with memory; arguments and errors as for `custom_policy`."""
    memoryless = custom_policy(_one_step("policy_network", module), inputs, action, precision)
    _check_carry("policy_network", memoryless, inputs)
    of_one_step = jax.eval_shape(memoryless.init, jax.random.key(0), jnp.zeros(inputs))["module"]
    check_names(
        memoryless.module, of_one_step["params"]["module"], "memory_parameters", names_of
    )
    return CustomMemory(memoryless, precision=precision)


def custom_memory_value(
    module: nn.Module, inputs: int, precision: str = "highest"
) -> CustomMemory:
    """A user's value network with memory; arguments and errors as for `custom_value`."""
    memoryless = custom_value(_one_step("value_network", module), inputs, precision)
    _check_carry("value_network", memoryless, inputs)
    return CustomMemory(memoryless, precision=precision)


def _one_step(name: str, module: Any) -> OneStep:
    if not isinstance(module, nn.Module):
        raise checks.BadArgument(name, module, "must be a flax.linen module (an instance)")
    return OneStep(module)


def _check_carry(name: str, network: CustomPolicy | CustomValue, inputs: int) -> None:
    """Raises `BadArgument` where a carry does not come out as it went in."""
    module, shown = network.module, network.module.own_name  # type: ignore[attr-defined]
    x = jax.ShapeDtypeStruct((*_BATCH, inputs), jnp.float32)

    def one_step(key: jax.Array, x: jax.Array) -> tuple[Carry, Carry, Carry]:
        variables = network.init(key, x[0, 0])["module"]
        before, single = (module.module.initial_carry(shape) for shape in (_BATCH, ()))
        return before, module.apply(variables, before, x, method="step")[1], single

    try:
        before, after, single = jax.eval_shape(one_step, jax.random.key(0), x)
    except Exception as error:  # a user's code raises what it likes
        said = (str(error).strip().splitlines() or [""])[0][:200]
        raise checks.BadArgument(
            name, shown, "must take (carry of initial_carry(batch_shape), observations) and give "
            f"(what it says, carry); it raised {type(error).__name__}: {said}",
        ) from error
    if not jax.tree.leaves(single):
        raise checks.BadArgument(name, shown, "has an initial_carry that holds nothing")
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*_BATCH, *x.shape), x.dtype), single)
    if before != wanted or after != before:
        raise checks.BadArgument(
            name, shown, f"a carry of {_BATCH} episodes must have these axes before those of "
            f"initial_carry(()), {_short(single)}, and come out as it went in; initial_carry has "
            f"{_short(before)}, and a step gives {_short(after)}",
        )


def _short(shapes: Any) -> str:
    return ", ".join(f"{x.dtype} {x.shape}" for x in jax.tree.leaves(shapes))
