"""The parts of an iteration as programs of their own, each on the data that it meets there."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jtrust.algorithms import Batch
from jtrust.algorithms.batch import CostBatch
from jtrust.algorithms.surrogate import Surrogate
from jtrust.networks import has_memory
from jtrust.networks.sequence import Sequence
from jtrust.profiling.probes import replay
from jtrust.training import Trainer, TrainState
from jtrust.training.mesh import (
    AXIS,
    REPLICATED,
    SHARDED,
    STATE_SPEC,
    compiler_options,
    is_cpu,
    per_shard,
)
from jtrust.training.random_keys import ACTIONS, environment_keys
from jtrust.training.rollout import Trajectory, in_blocks

BY_TIME: Any = PartitionSpec(None, AXIS)
_SEQUENCE: Any = Sequence(BY_TIME, BY_TIME, SHARDED)
# How a rollout is spread over devices: what is remembered before it has no axis of time.
_TRAJECTORY = Trajectory(**{
    f.name: SHARDED if f.name == "memory" else BY_TIME for f in dataclasses.fields(Trajectory)
})


def _batch_spec(trainer: Trainer, costs: bool = False) -> Batch:
    """How a batch of `trainer` is spread over its devices, once `costs` are judged or before."""
    by_cost: Any = PartitionSpec(None, None, AXIS)
    of_costs = CostBatch(by_cost, REPLICATED, REPLICATED)
    apart: dict[str, Any] = {
        "environment_keys": SHARDED, "trust": REPLICATED,
        "on_cpu": is_cpu(trainer.mesh), "costs": of_costs if costs else None,
    }
    for name, custom in (
        ("observation", trainer.custom_policy), ("value_observation", trainer.custom_value)
    ):
        if has_memory(trainer.network, custom):
            apart[name] = _SEQUENCE
    return Batch(**{f.name: apart.get(f.name, BY_TIME) for f in dataclasses.fields(Batch)})


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of an iteration, as a compiled program.

    Attributes:
      name: what it is.
      run: the program, on its data.
      behind: the part whose work this program does first, so that only the difference of their
        times belongs to it; None where it starts from data that are ready.
    """

    name: str
    run: Callable[[], Any]
    behind: str | None = None


WHOLE, ROLLOUT = "whole iteration", "rollout"
PHYSICS, INFERENCE, STARTS = "physics", "policy inference", "fresh starts"
GRADIENT, PRODUCTS, SEARCH = (
    "update: gradient", "update: Fisher-vector products", "update: line search"
)
IN_PARTS, ROUNDS, COSTS = "update, in parts", "value rounds before it", "costs"
WHOLE_UPDATE = "update"


def make_parts(trainer: Trainer, state: TrainState) -> list[Part]:
    """The parts of the iteration that starts at `state`, behind the whole of it."""

    def shard(function: Callable, in_specs: Any, out_specs: Any, *args: Any) -> Callable[[], Any]:
        program = jax.jit(
            per_shard(function, trainer.mesh, in_specs, out_specs),
            compiler_options=compiler_options(trainer.mesh),
        )
        return lambda: program(*args)

    def keys(state):
        return environment_keys(state, trainer.collection.envs_per_device)

    starts = shard(
        lambda s: trainer.collection.reset_pool(s, keys(s)), (STATE_SPEC,), SHARDED, state
    )
    rollout = shard(
        lambda s: trainer.collection(s, keys(s))[:2], (STATE_SPEC,), (STATE_SPEC, _TRAJECTORY),
        state,
    )
    after, trajectory = rollout()
    physics = shard(
        functools.partial(replay, trainer), (STATE_SPEC, SHARDED, BY_TIME), (SHARDED, BY_TIME),
        state, starts(), trajectory.action,
    )
    inference = shard(
        lambda *args: _act(trainer, *args), (STATE_SPEC, BY_TIME), BY_TIME,
        state, trajectory.observation,
    )
    estimate = shard(trainer.estimation, (STATE_SPEC, _TRAJECTORY), BY_TIME, after, trajectory)
    normalization = shard(
        lambda s, steps, estimates: trainer.preparation(s, steps, estimates, keys(s))[:2],
        (STATE_SPEC, _TRAJECTORY, BY_TIME), (STATE_SPEC, _batch_spec(trainer)),
        after, trajectory, estimate(),
    )
    ready, batch = normalization()

    def update(function: Callable) -> Callable[[], Any]:
        spec = _batch_spec(trainer, trainer.constraints is not None)
        return shard(function, (STATE_SPEC, spec), REPLICATED, ready, batch)

    again = []
    if trainer.value_fit.rounds > 1:
        run = shard(
            trainer.evaluation, (STATE_SPEC, _TRAJECTORY, _batch_spec(trainer)),
            (STATE_SPEC, _batch_spec(trainer)), ready, trajectory, batch,
        )
        again = [Part(ROUNDS, run)]
    if (constrain := trainer.constraints) is not None:
        judged = shard(
            lambda *args: constrain(*args)[:2],
            (STATE_SPEC, STATE_SPEC, BY_TIME, _batch_spec(trainer)),
            (STATE_SPEC, _batch_spec(trainer, costs=True)), after, ready, trajectory, batch,
        )
        ready, batch = judged()
        again.append(Part(COSTS, judged))
    return [
        Part(WHOLE, lambda: trainer.iterate(state)),
        Part(ROLLOUT, rollout),
        Part(STARTS, starts),
        Part(PHYSICS, physics),
        Part(INFERENCE, inference),
        Part("advantages", estimate),
        Part("normalization", normalization),
        *again,
        *[Part(name, update(f), behind) for name, f, behind in _update_parts(trainer)],
        Part("value fit", update(trainer.evaluation.fit)),
    ]


def _act(trainer: Trainer, state: TrainState, observation: Any) -> jax.Array:
    """Actions at observations [T, N, O], one time step after another as in a rollout."""

    def block(keys, observation, memory):
        def step(memory, x):
            t, now = x
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
            policy, memory = trainer.agent.act(state, memory, now)
            return memory, jax.vmap(lambda d, k: d.sample(k))(policy, step_keys)

        by_time = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), observation)
        numbered = jnp.arange(trainer.unroll_length), by_time
        return (), jax.lax.scan(step, memory, numbered)[1], ()

    by_environment = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), observation)
    size = trainer.collection.block_size(state.episodes.state)
    keys = environment_keys(state, trainer.collection.envs_per_device)[:, ACTIONS]
    return in_blocks(block, size, keys, by_environment, state.episodes.memory)[1]


def _update_parts(trainer: Trainer) -> list[tuple[str, Callable, str | None]]:
    """Programs that end behind each part of the policy update and hold what comes before it.

    Of the whole update only one result is asked for: the compiler leaves out what does not lead
    to it.
    """
    algorithm, network = trainer.algorithm, trainer.policy_network

    def whole(state, batch):
        return algorithm.update(state.policy_optimizer, state.policy, network, batch, AXIS)

    def gradient(state, batch):
        return Surrogate(state.policy, network, batch, algorithm.entropy_cost, AXIS).gradient()

    if algorithm.parts > 1:  # the same program several times over
        return [(IN_PARTS, whole, None)]
    if algorithm.name in ("trpo", "npg"):
        return [
            (GRADIENT, gradient, None),
            (PRODUCTS, lambda s, b: whole(s, b)[2]["policy/cg_residual"], GRADIENT),
            (SEARCH, whole, PRODUCTS),
        ]
    if algorithm.name not in ("ppo", "ppo-kl", "trpl"):  # one of the user's own
        return [(WHOLE_UPDATE, whole, None)]
    # Here the one product, which predicts the KL, is timed together with the search.
    return [
        (GRADIENT, lambda s, b: whole(s, b)[2]["policy/skipped"], None),
        (SEARCH, whole, GRADIENT),
    ]
