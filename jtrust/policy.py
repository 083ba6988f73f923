"""A trained policy, ready to act."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.environments.base import ActionSpace, select
from jtrust.normalization import Moments


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """Observations to actions; call it.

    Attributes:
      network: the policy network, a `jtrust.networks.Network`.
      action: the space of actions.
      params: its parameters.
      moments: what observations are normalised by.
      key: which of a dictionary of observations it reads; None where there is one vector.
    """

    network: Any
    action: ActionSpace
    params: Any
    moments: Moments
    key: str | None = None

    def __call__(self, observation: Any, key: jax.Array | None = None) -> jax.Array:
        """Acts.

        Args:
          observation: [..., O], any leading axes; or a dictionary that holds it under `key`.
          key: random key for a sample from the policy; None for its mode.

        Returns:
          Actions as the environment takes them: [..., A], or integers [...] if discrete.

        Raises:
          BadArgument: an observation of another size, or a dictionary without it.
        """
        if isinstance(observation, Mapping):
            observation = self._own(observation)
        size = self.moments.mean.shape[-1]
        shape = jnp.shape(observation)
        if not shape or shape[-1] != size:
            raise checks.BadArgument("observation", shape, f"must have a last axis of {size}")
        observation = jnp.asarray(observation, jnp.float32)
        if key is None:
            return self._mode(self.params, self.moments, observation)
        return self._sample(self.params, self.moments, observation, key)

    def _own(self, observation: Mapping[str, jax.Array]) -> jax.Array:
        if self.key is None or self.key not in observation:
            wanted = "a vector" if self.key is None else f"a vector, or have {self.key!r}"
            raise checks.BadArgument("observation", sorted(observation), f"must be {wanted}")
        return select(observation, self.key)

    def distribution(self, params: Any, moments: Moments, observation: Any) -> Any:
        """The distribution over actions on the policy's own scale; pure."""
        if isinstance(observation, Mapping):
            observation = self._own(observation)
        return self.network.apply(params, moments.normalize(observation))

    def to_environment(self, action: jax.Array) -> jax.Array:
        """Actions on the policy's scale, [..., A] or [...], as the environment takes them."""
        return self.action.to_environment(action)

    @functools.cached_property
    def _mode(self):
        return jax.jit(
            lambda p, m, x: self.to_environment(self.distribution(p, m, x).mode())
        )

    @functools.cached_property
    def _sample(self):
        return jax.jit(
            lambda p, m, x, k: self.to_environment(self.distribution(p, m, x).sample(k))
        )
