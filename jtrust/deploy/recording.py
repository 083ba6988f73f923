"""Whole episodes, and of each step what a picture needs; the numbers are those of `evaluate`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust.deploy.scene import pose
from jtrust.environments import Environment
from jtrust.environments.same import same_environment
from jtrust.policy import Policy
from jtrust.runs.evaluate import acting
from jtrust.training.evaluation import Carry, advance_episodes, begin_episodes

# Steps of a program that runs again and again until all episodes have ended.
_CHUNK = 64

# (params, observations [N, O] or a dictionary of them) -> [N], shown beside the return.
Measure = Callable[[Any, Any], jax.Array]


@dataclasses.dataclass(frozen=True)
class Recording:
    """N episodes of at most T steps, of which the first K are kept; all on the host.

    Attributes:
      returns: of whole episodes, [N].
      lengths: steps of whole episodes, int [N].
      nonfinite: which ended in NaN or infinity, bool [N].
      overflow: in which the physics lost contacts for want of room, bool [N].
      poses: by field of `mujoco.MjData`, before the first step and after each, [K + 1, N, ...];
        nothing where the environment has no model.
      rewards: of each step, 0 behind an episode's end, [K, N].
      measures: by name, of the state before each step, [K, N].
      observations, actions: before each step what the policy reads, and what it does, on the
        environment's own scale, [K, N, ...]; None unless asked for.
    """

    returns: np.ndarray
    lengths: np.ndarray
    nonfinite: np.ndarray
    overflow: np.ndarray
    poses: dict[str, np.ndarray]
    rewards: np.ndarray
    measures: dict[str, np.ndarray]
    observations: np.ndarray | None = None
    actions: np.ndarray | None = None

    def steps_of(self, episode: int) -> int:
        """How many steps of an episode there is something kept of, and finite."""
        steps = min(int(self.lengths[episode]), len(self.rewards))
        for value in self.poses.values():
            whole = np.isfinite(value[: steps + 1, episode].reshape(steps + 1, -1)).all(axis=1)
            if not whole.all():
                steps = max(int(np.argmin(whole)) - 1, 0)
        return steps

    @property
    def begun_whole(self) -> np.ndarray:
        """Which episodes have a first pose that can be drawn, bool [N]."""
        whole = np.ones(len(self.returns), bool)
        for value in self.poses.values():
            whole &= np.isfinite(value[0].reshape(len(whole), -1)).all(axis=1)
        return whole


def record(
    policy: Policy, environment: Environment, episodes: int, *, seed: int = 0,
    stochastic: bool = False, most_steps: int | None = None,
    measures: Mapping[str, tuple[Measure, Any]] | None = None, observe: bool = False,
) -> Recording:
    """Runs whole episodes side by side, as `jtrust.evaluate` runs them.

    Args:
      policy: who acts.
      environment: in what.
      episodes: N.
      seed, stochastic: as for `jtrust.evaluate`.
      most_steps: steps of each episode that are kept; by default all.
      measures: what else to know of each state, by name: the function, and its parameters.
      observe: keep observations and actions too.
    """
    measures = dict(measures or {})
    environment = same_environment(environment)
    parameters = (policy.params, policy.statistics), {k: p for k, (_, p) in measures.items()}
    programs = _programs(
        environment, acting(policy, stochastic), episodes, policy.key if observe else None,
        observe, tuple((name, function) for name, (function, _) in measures.items()),
    )
    begin, go_on = programs
    carry, keys, first = begin(jax.random.key(seed), policy.initial_carry((episodes,)))
    kept, count = [], 0
    limit = environment.episode_length if most_steps is None else most_steps
    while bool(jnp.any(carry[1])) and int(carry[3]) < environment.episode_length:
        carry, steps = go_on(parameters, keys, carry)
        if count < limit:  # what comes later counts for the return alone
            kept.append(jax.device_get(steps))
            count += _CHUNK
    joined = jax.tree.map(lambda *x: np.concatenate(x)[:limit], *kept)
    first = jax.device_get(first)
    result = jax.device_get(carry[2])
    return Recording(
        returns=result["return"], lengths=result["length"], nonfinite=result["nonfinite"],
        overflow=result["overflow"], rewards=joined["reward"],
        poses={k: np.concatenate([first[k][None], v]) for k, v in joined["pose"].items()},
        measures=joined["measures"], observations=joined.get("observation"),
        actions=joined.get("action"),
    )


@functools.lru_cache(maxsize=4)  # a policy is drawn again and again while it is trained
def _programs(
    environment: Environment, act: Callable, episodes: int, key: str | None, observe: bool,
    measures: tuple[tuple[str, Measure], ...],
) -> tuple[Callable, Callable]:
    """(random key -> what begins, the first pose), (one chunk of steps, and what is kept)."""

    @jax.jit
    def begin(
        random_key: jax.Array, memory: Any
    ) -> tuple[Carry, jax.Array, dict[str, jax.Array]]:
        carry, keys = begin_episodes(environment, random_key, episodes, memory)
        return carry, keys, pose(carry[0].state)

    def step(parameters: Any, keys: jax.Array, carry: Carry) -> tuple[Carry, dict[str, Any]]:
        of_policy, of_measures = parameters
        seen = carry[0].observation
        kept: dict[str, Any] = {
            "measures": {name: f(of_measures[name], seen) for name, f in measures}
        }
        carry, action, kept["reward"] = advance_episodes(environment, act, of_policy, keys, carry)
        kept["pose"] = pose(carry[0].state)
        if observe:
            kept["observation"] = seen if key is None else seen[key]
            kept["action"] = jax.vmap(environment.action.to_environment)(action)
        return carry, kept

    @jax.jit
    def go_on(parameters: Any, keys: jax.Array, carry: Carry) -> tuple[Carry, dict[str, Any]]:
        # Past the time limit an episode has ended, whatever its state goes on to do.
        return jax.lax.scan(lambda c, _: step(parameters, keys, c), carry, length=_CHUNK)

    return begin, go_on
