"""What an update learns from."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.hyperparameters import static
from jtrust.networks.sequence import every, has_sequences, states


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CostBatch:
    """What a rollout says of K costs.

    Attributes:
      advantage: A_C in units of cost, with a mean of 0 over all shards, [K, T, N]; 0 where the
        simulator broke.
      estimate: J_C, the mean sum of each cost over an episode, [K].
      episode_length: mean number of steps of an episode, [].
    """

    advantage: jax.Array
    estimate: jax.Array
    episode_length: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One shard's rollout, ready for an update.

    Attributes:
      observation: what the policy reads, normalised, [T, N, O]; for one with memory a `Sequence`.
      value_observation: what the value network reads, normalised, [T, N, V]; or a `Sequence`.
      action: [T, N, A], or [T, N] if discrete.
      advantage: mean 0 and standard deviation 1 over all shards, [T, N].
      value_target: on the value network's output scale, [T, N].
      environment_keys: one random key per environment, [N]; consumed.
      trust: share of `max_kl` that this batch may use, []; see `GAE.advantage_floor`. 0
        where rewards have said nothing yet: no update is made.
      weight: of each step, [T, N], with a mean of 1 over all shards: 0 where the simulator broke.
      broken: where it did, 0 or 1, [T, N]; these count in the surrogate objective alone, with the
        advantage that stands there.
      behaviour_log_prob: log density of the actions under the policy that chose them, [T, N]; None
        where that is the policy to be updated.
      costs: where costs have limits; None elsewhere.
      on_cpu: whether CPUs compute the update, which then takes states in blocks where many of
        them would not fit the cache.
    """

    observation: Any
    value_observation: Any
    action: jax.Array
    advantage: jax.Array
    value_target: jax.Array
    environment_keys: jax.Array
    trust: jax.Array | float = 1.0
    weight: jax.Array | float = 1.0
    broken: jax.Array | float = 0.0
    behaviour_log_prob: jax.Array | None = None
    costs: CostBatch | None = None
    on_cpu: bool = static(False)

    def weights(self) -> jax.Array:
        """`weight` as [T, N]."""
        return jnp.broadcast_to(jnp.asarray(self.weight, jnp.float32), self.advantage.shape)

    def size(self, axis_name: str | None) -> tuple[int, int]:
        """(environments on all shards together, steps of each)."""
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        return self.advantage.shape[1] * shards, self.advantage.shape[0]

    def some_states(self, stride: int) -> tuple[Any, jax.Array]:
        """What the policy reads of one state in `stride`, and their weights: of every so many-th
        time step; or, where it has a memory, of every so many-th environment."""
        observation = states(every(stride, self.observation, self.observation))
        return observation, flatten_time(every(stride, self.observation, self.weights()))

    @property
    def fits_in_blocks(self) -> bool:
        """Whether the policy reads states one by one, on a CPU, whose cache does not hold all."""
        return self.on_cpu and not has_sequences(self.observation)

    def surrogate_weights(self) -> jax.Array:
        """Weights of the steps in the surrogate objective, [T, N]."""
        return self.weights() + self.broken


def flatten_time(x: jax.Array) -> jax.Array:
    """[T, N, ...] -> [T N, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
