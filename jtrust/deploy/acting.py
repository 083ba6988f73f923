"""What a policy does as a function of arrays, and how its inputs and outputs are called."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.distributions import Categorical, DiagonalGaussian, MultiCategorical, TanhGaussian
from jtrust.environments.base import Discrete
from jtrust.policy import Policy

# Those whose samples are a function of the noise that `noise_like` draws.
_SAMPLED = (DiagonalGaussian, TanhGaussian, Categorical, MultiCategorical)

NOISE = {
    "normal": "independent standard normal numbers",
    "gumbel": "independent standard Gumbel numbers, -log(-log(u)) of u uniform in (0, 1)",
}


@dataclasses.dataclass(frozen=True)
class Array:
    """An input or an output: its name, its shape without the batch, its type and what it is."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    meaning: str

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "shape": ["batch", *self.shape], "dtype": str(self.dtype),
            "meaning": self.meaning,
        }


@dataclasses.dataclass(frozen=True)
class Acting:
    """(observations [batch, O], noise where it samples, what it remembers where it has a memory) ->
    (actions, logits if it has any, what it remembers then).

    All between the raw observation and the action that the environment takes: statistics, network,
    squash or clip, bins, scale.

    Attributes:
      policy: the policy.
      distribution: its class of distributions.
      logits: shape of their logits without the batch; None where they have none.
      stochastic: whether it samples; else it takes the mode.
    """

    policy: Policy
    distribution: type
    logits: tuple[int, ...] | None
    stochastic: bool

    @classmethod
    def of(cls, policy: Policy, stochastic: bool) -> Acting:
        """Nothing is computed.

        Raises:
          BadArgument: one to be sampled whose distribution is its own.
        """
        observations = jax.ShapeDtypeStruct((2, *policy.statistics.mean.shape), jnp.float32)
        found = jax.eval_shape(
            lambda x: policy.distribution(policy.params, policy.statistics, x), observations
        )
        if stochastic and type(found) not in _SAMPLED:
            raise checks.BadArgument(
                "stochastic", stochastic,
                f"how {type(found).__name__} draws its samples is not known; export the mode, or "
                f"return one of {', '.join(x.__name__ for x in _SAMPLED)}",
            )
        logits = found.logits.shape[1:] if isinstance(found, Categorical) else None
        return cls(policy, type(found), logits, stochastic)

    def __call__(self, observations: jax.Array, *others: jax.Array) -> tuple[jax.Array, ...]:
        policy = self.policy
        # Known numbers let XLA write products for quotients, which round otherwise; the policy's
        # own program has them as arguments.
        params, statistics = jax.lax.optimization_barrier((policy.params, policy.statistics))
        noise, remembered = others[:self.stochastic], others[self.stochastic:]
        carry = jax.tree.unflatten(jax.tree.structure(policy.carry_shapes), remembered)
        distribution, carry = policy.network.apply(
            params, carry, statistics.normalize(observations)
        )
        distribution = distribution.broadcast()
        action = sampled(distribution, noise[0]) if noise else distribution.mode()
        actions = policy.to_environment(action)
        if isinstance(policy.action, Discrete):
            actions = actions.astype(jnp.int32)
        said = (actions,) if self.logits is None else (actions, distribution.logits)
        return (*said, *jax.tree.leaves(carry))

    @functools.cached_property
    def compiled(self) -> Any:
        """The same, compiled by JAX."""
        return jax.jit(self.__call__)

    @property
    def noise_kind(self) -> str:
        return "normal" if self.logits is None else "gumbel"

    @property
    def inputs(self) -> list[Array]:
        policy, single = self.policy, np.dtype(np.float32)
        of = "" if policy.key is None else f", what the environment's has under {policy.key!r}"
        found = [Array(
            "observations", policy.statistics.mean.shape, single,
            f"as the environment gives them{of}",
        )]
        if self.stochastic:
            shape = self.logits or (policy.action.size,)  # type: ignore[union-attr]
            found.append(Array("noise", shape, single, NOISE[self.noise_kind]))
        return found + self._carry("carry", "zeros where an episode begins, then the last output")

    @property
    def outputs(self) -> list[Array]:
        action = self.policy.action
        if isinstance(action, Discrete):
            actions = Array("actions", (), np.dtype(np.int32), f"0 to {action.n - 1}")
        else:
            actions = Array(
                "actions", (action.size,), np.dtype(np.float32),
                f"as the environment takes them, {action.low:g} to {action.high:g}",
            )
        found = [actions]
        if self.logits is not None:
            meaning = "unnormalised log probabilities"
            found.append(Array("logits", self.logits, np.dtype(np.float32), meaning))
        return found + self._carry("next_carry", "what the next step is given as carry")

    def _carry(self, name: str, meaning: str) -> list[Array]:
        """What is remembered, one array of each kind; nothing without memory."""
        return [
            Array(f"{name}_{i}", x.shape, np.dtype(x.dtype), meaning)
            for i, x in enumerate(jax.tree.leaves(self.policy.carry_shapes))
        ]

    def noise_like(self, key: jax.Array, batch: int) -> np.ndarray:
        """The noise, [batch, ...], with which the distribution's own `sample(key)` draws."""
        shape = (batch, *self.inputs[1].shape)
        draw = jax.random.normal if self.noise_kind == "normal" else jax.random.gumbel
        return np.asarray(draw(key, shape, jnp.float32))


def sampled(distribution: Any, noise: jax.Array) -> jax.Array:
    """A sample from noise: mean + deviation * noise, or the largest of logits + noise."""
    if isinstance(distribution, Categorical):
        return jnp.argmax(distribution.logits + noise, axis=-1)
    found = distribution.mean + jnp.exp(distribution.log_std) * noise
    return jnp.tanh(found) if isinstance(distribution, TanhGaussian) else found


def action_range(policy: Policy) -> float:
    """How far an environment's actions reach, high - low; 1 where they are discrete."""
    action = policy.action
    return 1.0 if isinstance(action, Discrete) else action.high - action.low
