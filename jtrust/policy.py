"""A trained policy, ready to act."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.environments.base import ActionSpace, select
from jtrust.networks import PolicyNetwork, RunningStatistics


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Observations [..., O] to actions [..., A], or integers [...] if discrete.

    Call it; or, where it has a memory, `act` step by step.

    Attributes:
      network: the policy network.
      action: the space of actions.
      params: its parameters.
      statistics: what observations are normalised by.
      key: which of a dictionary of observations it reads; None where there is one vector.
    """

    network: PolicyNetwork
    action: ActionSpace
    params: Any
    statistics: RunningStatistics
    key: str | None = None

    def __call__(self, observation: Any, key: jax.Array | None = None) -> jax.Array:
        """Acts.

        Args:
          observation: [..., O], any leading axes; or a dictionary that holds it under `key`.
          key: random key for a sample from the policy; None for its mode.

        Returns:
          Actions as the environment takes them: [..., A], or integers [...] if discrete.

        Raises:
          BadArgument: an observation of another size, of no real numbers, or a dictionary without
            it; a key that is none; or a policy with a memory.
        """
        if self.has_memory:
            raise checks.BadArgument(
                "policy", type(self.network).__name__,
                "has a memory; begin episodes with carry = policy.initial_carry(batch_shape), and "
                "take each step by action, carry = policy.act(carry, observation)",
            )
        return self.act((), observation, key)[0]

    @property
    def has_memory(self) -> bool:
        """Whether what it does depends on the steps before."""
        return bool(jax.tree.leaves(self.carry_shapes))

    @functools.cached_property
    def carry_shapes(self) -> Any:
        """The carry of one episode, as shapes; () without memory."""
        return jax.eval_shape(self.network.initial_carry)

    def initial_carry(self, batch_shape: tuple[int, ...] = ()) -> Any:
        """What is remembered where an episode begins, [*batch_shape, ...] each leaf; () without
        memory."""
        return self.network.initial_carry(tuple(batch_shape))

    def act(
        self, carry: Any, observation: Any, key: jax.Array | None = None
    ) -> tuple[jax.Array, Any]:
        """Takes one step of an episode, or of many.

        Args:
          carry: of `initial_carry(batch_shape)` where episodes begin, and then what the step before
            gave.
          observation: [*batch_shape, O]; or a dictionary that holds it under `key`.
          key: random key for a sample from the policy; None for its mode.

        Returns:
          (actions as the environment takes them, [*batch_shape, A], or integers [*batch_shape] if
          discrete, the carry for the next step).

        Raises:
          BadArgument: as where it is called; or a carry of another shape.
        """
        if isinstance(observation, Mapping):
            observation = self._own(observation)
        size = self.statistics.mean.shape[-1]
        observation = _real_numbers("observation", observation)
        if not observation.shape or observation.shape[-1] != size:
            raise checks.BadArgument(
                "observation", observation.shape, f"must have a last axis of {size}"
            )
        self._check_carry(carry, observation.shape[:-1])
        mode, sample = self._programs
        if key is None:
            return mode(self.params, self.statistics, carry, observation)
        checks.random_key("key", key)
        return sample(self.params, self.statistics, carry, observation, key)

    def _check_carry(self, carry: Any, batch_shape: tuple[int, ...]) -> None:
        given, wanted = jax.tree.map(jnp.shape, carry), jax.tree.map(
            lambda x: (*batch_shape, *x.shape), self.carry_shapes
        )
        if given != wanted:
            raise checks.BadArgument(
                "carry", given, f"must be that of policy.initial_carry({batch_shape}): {wanted}"
            )

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled and copied: not the compiled functions, which are made again."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def _own(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        if self.key is None or self.key not in observation:
            wanted = "a vector" if self.key is None else f"a vector, or have {self.key!r}"
            raise checks.BadArgument(
                "observation", sorted(map(str, observation)), f"must be {wanted}"
            )
        return select(observation, self.key)

    def distribution(self, params: Any, statistics: RunningStatistics, observation: Any) -> Any:
        """The distribution over actions on the policy's own scale; pure."""
        if isinstance(observation, Mapping):
            observation = self._own(observation)
        return self.network(params, statistics.normalize(observation))

    def to_environment(self, action: jax.Array) -> jax.Array:
        """Actions on the policy's scale, [..., A] or [...], as the environment takes them."""
        return self.action.to_environment(action)

    @functools.cached_property
    def _programs(self) -> tuple[Callable, Callable]:
        """(mode, sample), compiled once for all policies of a network."""
        try:
            return _programs(self.network, self.action)  # type: ignore[arg-type]
        except TypeError:  # a module of the user's own that cannot be hashed
            return _programs.__wrapped__(self.network, self.action)


@functools.lru_cache(maxsize=8)
def _programs(network: PolicyNetwork, action: ActionSpace) -> tuple[Callable, Callable]:
    def mode(params: Any, statistics: RunningStatistics, carry: Any, observation: Any) -> tuple:
        distribution, carry = network.apply(params, carry, statistics.normalize(observation))
        return action.to_environment(distribution.mode()), carry

    def sample(
        params: Any, statistics: RunningStatistics, carry: Any, observation: Any, key: jax.Array
    ) -> tuple:
        distribution, carry = network.apply(params, carry, statistics.normalize(observation))
        return action.to_environment(distribution.sample(key)), carry

    return jax.jit(mode), jax.jit(sample)


def _real_numbers(name: str, value: Any) -> jax.Array:
    """`value` as float32.

    Raises:
      BadArgument: it is none, complex, or nothing of which JAX makes an array.
    """
    remedy = "must be an array of real numbers"
    if value is None:
        raise checks.BadArgument(name, value, remedy)
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)):
        try:
            value = np.asarray(value)
        except Exception:  # traced numbers in a list, for one
            try:
                value = jnp.asarray(value)
            except Exception as error:  # and ragged lists
                raise checks.BadArgument(name, value, remedy) from error
    real = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(value.dtype, kind) for kind in real):
        raise checks.BadArgument(name, f"of type {value.dtype}", remedy)
    return jnp.asarray(value, jnp.float32)
