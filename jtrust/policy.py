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
    """Observations [..., O] to actions [..., A], or integers [...] if discrete; call it.

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
            it; or a key that is none.
        """
        if isinstance(observation, Mapping):
            observation = self._own(observation)
        size = self.statistics.mean.shape[-1]
        observation = _real_numbers("observation", observation)
        if not observation.shape or observation.shape[-1] != size:
            raise checks.BadArgument(
                "observation", observation.shape, f"must have a last axis of {size}"
            )
        mode, sample = self._programs
        if key is None:
            return mode(self.params, self.statistics, observation)
        checks.random_key("key", key)
        return sample(self.params, self.statistics, observation, key)

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
    def distribution(params: Any, statistics: RunningStatistics, observation: Any) -> Any:
        return network(params, statistics.normalize(observation))

    return (
        jax.jit(lambda p, s, x: action.to_environment(distribution(p, s, x).mode())),
        jax.jit(lambda p, s, x, k: action.to_environment(distribution(p, s, x).sample(k))),
    )


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
