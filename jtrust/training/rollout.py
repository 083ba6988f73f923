"""Gathering experience: the policy acts in every environment for a fixed number of steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.environments import Environment, batch
from jtrust.environments.batch import Episodes
from jtrust.networks import Carries
from jtrust.training.packing import Packed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectory:
    """T steps of N environments.

    Attributes:
      observation: [T, N, O], or a dictionary of those that the networks read.
      action: [T, N, A], or [T, N] if discrete; integers where it is discrete or in bins.
      reward: [T, N].
      termination: bool [T, N].
      truncation: bool [T, N].
      truncation_value: value of the true last observation where truncated, 0 elsewhere, [T, N].
      whole: whether the simulator gave finite numbers, bool [T, N]; other steps count in the
        policy's surrogate objective alone.
      memory: what the networks remembered before the first step, [N, ...] each leaf.
      costs: [T, N] each, by name.
      truncation_cost_values: as `truncation_value`, of the costs that have limits, [T, N, K]; None
        without any.
    """

    observation: Any
    action: jax.Array
    reward: jax.Array
    termination: jax.Array
    truncation: jax.Array
    truncation_value: jax.Array
    whole: jax.Array | bool = True
    memory: Carries = dataclasses.field(default_factory=Carries)
    costs: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    truncation_cost_values: jax.Array | None = None

    @property
    def end(self) -> jax.Array:
        """Whether the episode ended with a step, bool [T, N]."""
        return self.termination | self.truncation

    @property
    def starts(self) -> jax.Array:
        """Whether an episode began with a step, bool [T, N]; what is remembered before the first
        step is of the episode to which it belongs."""
        return jnp.concatenate([jnp.zeros_like(self.end[:1]), self.end[:-1]])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EpisodeTotals:
    """Sums over the episodes that ended in a rollout, [] each; [N] while it goes on.

    Attributes:
      count: how many ended, other than by a non-finite value.
      reward: sum of their returns.
      length: sum of their lengths.
      nonfinite: how many were cut by a non-finite value.
      overflow: steps at which the physics had no room for all contacts and constraints.
      costs: sums of their costs, by name.
    """

    count: jax.Array
    reward: jax.Array
    length: jax.Array
    nonfinite: jax.Array
    overflow: jax.Array
    costs: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

    @classmethod
    def zero(cls, count: int, costs: Iterable[str] = ()) -> EpisodeTotals:
        """Those of N environments before the first step, [N] each."""
        whole, real = jnp.zeros(count, jnp.int32), jnp.zeros(count, jnp.float32)
        return cls(whole, real, whole, whole, whole, dict.fromkeys(costs, real))

    def plus(self, outcome: batch.StepOutcome) -> EpisodeTotals:
        """With those of one step."""
        return EpisodeTotals(
            self.count + outcome.episode_end, self.reward + outcome.episode_return,
            self.length + outcome.episode_length, self.nonfinite + outcome.nonfinite,
            self.overflow + outcome.overflow,
            jax.tree.map(jnp.add, self.costs, outcome.episode_costs),
        )


@dataclasses.dataclass(frozen=True)
class Restarts:
    """How episodes that end go on; see `batch.restart`.

    Attributes:
      group: how many environments share start states; None for as many as there are, up to eight.
      first: where the environments' own start states begin among those given, [].
      branch: whether to ask at each step if any episode ended, and values are wanted: right on a
        CPU alone. Without, a step of the rollout writes as few arrays as it can.
      memory: what is remembered where an episode begins, [...] each leaf.
    """

    group: int | None = None
    first: jax.Array | int = 0
    branch: bool = True
    memory: Any = ()

    def apply(self, episodes: Episodes, starts: Any, end: jax.Array, t: jax.Array) -> Episodes:
        with jax.named_scope("restart"):
            return batch.restart(
                episodes, starts, end, t, self.group, self.first, self.branch, self.memory
            )


def rollout(
    environment: Environment,
    policy_fn: Callable[[Any, Any], tuple[Any, Any]],
    value_fn: Callable[[Any, Any], Any],
    episodes: Episodes,
    starts: Any,
    keys: jax.Array,
    unroll_length: int,
    restarts: Restarts = Restarts(),
) -> tuple[Episodes, Trajectory, EpisodeTotals]:
    """Lets the policy act for `unroll_length` steps in each environment.

    Random numbers come from each environment's own key, so what happens in one does not depend
    on which others run beside it.

    Args:
      environment: what to step.
      policy_fn: (memory, raw observations, [N, O] or a dictionary of such) -> (distribution over
        actions, memory).
      value_fn: the same -> values in units of reward [N], or a pytree of [N, ...]; what
        `truncation_value` is like; of all steps at once, [T, N].
      episodes: where each environment stands, [N, ...].
      starts: fresh start states for those that end, [N, ...].
      keys: one per environment, [N]; consumed.
      unroll_length: T.
      restarts: how episodes that end go on.

    Returns:
      (episodes after the last step, `Trajectory`, `EpisodeTotals`).
    """

    def last_values(truncation: jax.Array, memory: Any, last_observation: Any) -> Any:
        with jax.named_scope("truncation_values"):
            return jax.tree.map(
                lambda x: jnp.where(
                    truncation.reshape(truncation.shape + (1,) * (x.ndim - truncation.ndim)), x, 0.0
                ), value_fn(memory, last_observation),
            )

    def no_values(truncation: jax.Array, memory: Any, last_observation: Any) -> Any:
        like = jax.eval_shape(last_values, truncation, memory, last_observation)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)

    def step(carry: tuple[Episodes, EpisodeTotals], t: jax.Array):
        episodes, totals = carry
        observation = environment.used(episodes.observation)
        with jax.named_scope("policy_inference"):
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            distribution, memory = policy_fn(episodes.memory, observation)
            action = jax.vmap(lambda d, k: d.sample(k))(distribution, step_keys)
        with jax.named_scope("physics"):
            moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        moved = dataclasses.replace(moved, memory=memory)
        episodes = restarts.apply(moved, starts, end, t)
        rest: Any = {
            "action": action, "reward": outcome.reward, "termination": outcome.termination,
            "truncation": outcome.truncation, "whole": ~outcome.nonfinite,
            "costs": outcome.costs,
        }
        if restarts.branch:
            last = jax.lax.cond(
                jnp.any(outcome.truncation), last_values, no_values,
                outcome.truncation, memory, outcome.last_observation,
            )
        else:
            # Values of what was truncated wait until all steps are taken: one call of the network.
            rest, last = Packed.of(rest), (memory, outcome.last_observation)
        return (episodes, totals.plus(outcome)), (observation, rest, last)

    totals = EpisodeTotals.zero(keys.shape[0], environment.costs)
    (episodes, totals), (observation, rest, last) = jax.lax.scan(
        step, (episodes, totals), jnp.arange(unroll_length)
    )
    if not restarts.branch:
        rest = rest.tree()
        last = last_values(rest["truncation"], *last)
    trajectory = Trajectory(observation=observation, truncation_value=last, **rest)
    return episodes, trajectory, jax.tree.map(jnp.sum, totals)


# What a block's states may take on a CPU, measured: docs/evidence/speed.md.
_BLOCK_BYTES = 192 * 1024


def cache_block(count: int, state_bytes: int, group: int | None = None) -> int:
    """The largest block of environments whose states stay in a CPU's cache through a rollout.

    Args:
      count: environments of a shard; the block divides it.
      state_bytes: bytes of one environment's state.
      group: environments that share start states, of which a block holds all or none.
    """
    group = group or batch.reset_group(count)
    fits = [
        n for n in range(1, count + 1)
        if count % n == 0 and n * state_bytes <= _BLOCK_BYTES and n % group == 0
    ]
    # Below 32 a block is too narrow for vector instructions, whatever its states take.
    return max([n for n in fits if n >= 32], default=count)


def in_blocks(run: Callable[..., tuple], block: int, *inputs: Any) -> tuple:
    """`run` on one block of environments after another, as if on all of them at once.

    Args:
      run: (inputs) -> (pytree [n, ...], pytree [T, n, ...], pytree of sums).
      block: n; must divide N.
      *inputs: pytrees, [N, ...] each leaf.

    Returns:
      What `run` returns, for N environments.
    """
    count = jax.tree.leaves(inputs)[0].shape[0]
    if block == count:
        return run(*inputs)
    split = jax.tree.map(lambda x: x.reshape(count // block, block, *x.shape[1:]), inputs)
    by_env, by_time, sums = jax.lax.map(lambda x: run(*x), split)
    return (
        jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), by_env),
        jax.tree.map(_join_time, by_time),
        jax.tree.map(lambda x: jnp.sum(x, axis=0), sums),
    )


def _join_time(x: jax.Array) -> jax.Array:
    """[blocks, T, n, ...] -> [T, blocks n, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], *x.shape[3:])


def random_rollout(
    environment: Environment, episodes: Episodes, starts: Any, action: jax.Array,
    restarts: Restarts = Restarts(),
) -> tuple[Episodes, jax.Array]:
    """The environments alone, under given actions: what no trainer can be faster than.

    Args:
      episodes, starts, restarts: as for `rollout`.
      action: [T, N, A], or [T, N] if discrete.

    Returns:
      (episodes after the last step, rewards [T, N]).
    """

    def step(episodes: Episodes, x: tuple[jax.Array, jax.Array]):
        action, t = x
        moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        return restarts.apply(moved, starts, end, t), outcome.reward

    return jax.lax.scan(step, episodes, (action, jnp.arange(action.shape[0])))
