"""What a network is to everything else, and what all without memory have in common."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, Self

import flax.linen as nn
import jax

Params = Any
Carry = Any


class Network(Protocol):
    """A function of parameters that takes up new running statistics without changing.

    Trainers, algorithms and policies know no more of a network than this and what `PolicyNetwork`
    and `ValueNetwork` add.

    Attributes:
      precision: of all its products of matrices, one of `jtrust.networks.config.PRECISIONS`.
    """

    @property
    def precision(self) -> str: ...

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        """Parameters; `x` is one normalised observation, [O]."""
        ...

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        """What memory holds where an episode begins, [*batch_shape, ...] each leaf; () for none."""
        ...

    def apply(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        """(what it says of normalised observations [..., O], the carry after them)."""
        ...

    def unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        """(what it says of T steps of N environments, [T, N, ...], the carry after the last).

        Args:
          params: its parameters.
          carry: before the first step, [N, ...] each leaf.
          x: normalised observations, [T, N, O].
          starts: whether an episode begins with each, bool [T, N].
        """
        ...

    def sequence(self, carry: Carry, x: Any, starts: jax.Array) -> Any:
        """What `__call__` is given for all steps of a rollout; arguments as for `unroll`."""
        ...

    def following(self, carry: Carry, x: Any) -> Any:
        """What `__call__` is given for one step behind a carry, x [N, O]."""
        ...

    def __call__(self, params: Params, x: Any) -> Any:
        """What it says of normalised observations [..., O] with nothing before them; or of a
        `jtrust.networks.sequence.Sequence`, [T N, ...]."""
        ...

    def fold_input(self, params: Params, old: Any, new: Any) -> Params:
        """Parameters that make of observations normalised by `new` what `params` make of them
        normalised by `old`, both `RunningStatistics` of [O]."""
        ...

    def with_precision(self, precision: str) -> Self:
        """The same function, computed otherwise."""
        ...


class PolicyNetwork(Network, Protocol):
    """Gives distributions over actions (`jtrust.distributions`)."""

    def deviation(self, params: Params) -> Params:
        """Like `params`, bool: which are the standard deviation in all states at once."""
        ...

    def of_memory(self, params: Params) -> Params:
        """Like `params`, bool, of shapes that broadcast to theirs: which make what is remembered,
        or read it."""
        ...


class ValueNetwork(Network, Protocol):
    """Gives values [...] on the targets' scale."""

    def fold_output(self, params: Params, old: Any, new: Any) -> Params:
        """Parameters whose values on the scale of `new` are those of `params` on that of `old`,
        both `RunningStatistics` of a scalar."""
        ...

    def output_layer(self, params: Params) -> Any:
        """The parameters in which values are linear, given all others."""
        ...

    def with_output_layer(self, params: Params, layer: Any) -> Params:
        """`params` with other ones in their place."""
        ...


@dataclasses.dataclass(frozen=True)
class Memoryless:
    """What networks without memory have in common: the precision of all they compute.

    Left to themselves a TPU rounds the inputs of float32 products to bfloat16 and a GPU to TF32,
    and the policy that acts, the one whose KL divergence is measured and the one that takes up
    new statistics are then different functions. The precision is written into each product where
    it is traced, so derivatives, Fisher products included, inherit it, and physics keeps its own.

    Attributes:
      module: a flax.linen module, [..., O] -> a distribution, or values [...].
      precision: one of `jtrust.networks.config.PRECISIONS`.
    """

    module: nn.Module
    precision: str = "highest"

    def init(self, key: jax.Array, x: jax.Array) -> Params:
        with jax.default_matmul_precision(self.precision):
            return self._init(key, x)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Carry:
        return ()

    def apply(self, params: Params, carry: Carry, x: jax.Array) -> tuple[Any, Carry]:
        return self(params, x), carry

    def unroll(
        self, params: Params, carry: Carry, x: jax.Array, starts: jax.Array
    ) -> tuple[Any, Carry]:
        return self(params, x), carry

    def sequence(self, carry: Carry, x: Any, starts: jax.Array) -> Any:
        return x

    def following(self, carry: Carry, x: Any) -> Any:
        return x

    def __call__(self, params: Params, x: jax.Array) -> Any:
        with jax.default_matmul_precision(self.precision):
            return self._outputs(params, x)

    def with_precision(self, precision: str) -> Self:
        return dataclasses.replace(self, precision=precision)

    def of_memory(self, params: Params) -> Params:
        return none_of(params)

    def _init(self, key: jax.Array, x: jax.Array) -> Params:
        raise NotImplementedError

    def _outputs(self, params: Params, x: jax.Array) -> Any:
        raise NotImplementedError


def none_of(params: Params) -> Params:
    """Like `params`, bool: none of them."""
    return jax.tree.map(lambda _: False, params)


def named(params: Params, names: tuple[str, ...]) -> Params:
    """Like `params`, bool: which of them have one of these names."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool({*names_of(path)[-1:]} & {*names}), params
    )


def inside(params: Params, names: tuple[str, ...]) -> Params:
    """Like `params`, bool: which of them have one of these names, or are in what has."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: bool({*names_of(path)} & {*names}), params
    )


def names_of(path: tuple[Any, ...]) -> tuple[str, ...]:
    """The keys of dictionaries that lead to a leaf."""
    return tuple(str(part.key) for part in path if hasattr(part, "key"))
