"""Collecting a rollout: the policy acts in all environments, on whatever devices they are."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jtrust.environments.batch import (
    Episodes,
    begin,
    reset_group,
    reset_states,
    whole_resets,
)
from jtrust.training.agent import Agent
from jtrust.training.mesh import all_shards, environment_index, is_cpu
from jtrust.training.random_keys import ACTIONS, STARTS
from jtrust.training.rollout import (
    EpisodeTotals,
    Restarts,
    Trajectory,
    cache_block,
    in_blocks,
    rollout,
)
from jtrust.training.state import TrainState


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
    """Runs the policy, each episode that ends going on from a fresh start state.

    Attributes:
      agent: what acts, and in what.
      num_envs: N, over all devices.
      unroll_length: T.
      mesh: the devices.
    """

    agent: Agent
    num_envs: int
    unroll_length: int
    mesh: Mesh

    @property
    def envs_per_device(self) -> int:
        """N on each device."""
        return self.num_envs // self.mesh.size

    def __call__(
        self, state: TrainState, keys: jax.Array
    ) -> tuple[TrainState, Trajectory, EpisodeTotals]:
        """(state with the episodes moved on, `Trajectory`, `EpisodeTotals`) of this shard.

        Args:
          state: before the iteration.
          keys: `environment_keys` of it.
        """
        pool = self.reset_pool(state, keys)
        agent = self.agent
        run = functools.partial(
            rollout, agent.environment,
            functools.partial(agent.act, state), self.value_fn(state),
            unroll_length=self.unroll_length,
            restarts=self.restarts(pool),
        )
        episodes = self.begun(state, pool)
        with jax.named_scope("rollout"):
            episodes, trajectory, totals = in_blocks(
                run, self.block_size(pool), episodes, pool, keys[:, ACTIONS]
            )
        trajectory = dataclasses.replace(trajectory, memory=state.episodes.memory)
        return dataclasses.replace(state, episodes=episodes), trajectory, totals

    def value_fn(self, state: TrainState) -> Callable[[Any, Any], Any]:
        """(memory, raw observations, [N, O] or a dictionary of such) -> what a truncated step is
        valued by: values in units of reward [N], or a pytree of [N, ...]."""
        return functools.partial(self.agent.values_after, state)

    def reset_pool(self, state: TrainState, keys: jax.Array) -> Any:
        """Start states for the episodes that begin in this iteration, [M, ...] each leaf.

        Those of this shard's environments; or those of all shards, where groups that share start
        states reach over them: where `reset_group` does not divide a device's environments.
        """
        group = reset_group(self.num_envs)
        environment = self.agent.environment
        with jax.named_scope("fresh_starts"):
            pool = reset_states(environment, keys[:, STARTS], state.episodes.variation)
            if self.envs_per_device % group:
                pool = all_shards(pool)
            return whole_resets(environment, pool, group)

    def restarts(self, pool: Any) -> Restarts:
        """How episodes that end go on from the pool."""
        return Restarts(
            reset_group(self.num_envs), self._first(pool), is_cpu(self.mesh),
            self.agent.initial_memory(),
        )

    def _first(self, pool: Any) -> jax.Array | int:
        """Where this shard's environments begin in the pool, []."""
        count = self.envs_per_device
        everywhere = jax.tree.leaves(pool)[0].shape[0] != count
        return environment_index(count)[0] if everywhere else 0

    def begun(self, state: TrainState, pool: Any) -> Episodes:
        """The episodes under way; a run's first iteration begins them from the pool.

        Time limits would end all first episodes at once, and all that follow: each batch would
        hold the same stretch of every episode, and the policy would forget the others. So the
        first ones are cut at times spread evenly over an episode's length.
        """
        episodes, count = state.episodes, self.envs_per_device
        index = environment_index(count).astype(jnp.float32)
        spread = index * (self.agent.environment.episode_length / self.num_envs)
        begins = self._first(pool)

        def own(x: jax.Array) -> jax.Array:
            return x if x.shape[0] == count else jax.lax.dynamic_slice_in_dim(x, begins, count)

        first = jax.lax.cond(
            state.iteration == 0,
            lambda: begin(
                jax.tree.map(own, pool), head_start=spread.astype(jnp.int32),
                costs=self.agent.environment.costs,
            ),
            lambda: dataclasses.replace(episodes, variation=(), memory=()),
        )
        return dataclasses.replace(
            first, variation=episodes.variation, memory=episodes.memory
        )

    def block_size(self, states: Any) -> int:
        """How many of a shard's environments are rolled out together, given their states."""
        count = self.envs_per_device
        if not is_cpu(self.mesh):
            return count
        leaves = jax.tree.leaves(states)
        size = sum(x.size * x.dtype.itemsize for x in leaves) // leaves[0].shape[0]
        return cache_block(count, size, reset_group(self.num_envs))
