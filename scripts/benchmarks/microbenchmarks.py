"""Parts that need nothing but jtrust: the limit of the physics, and Fisher-vector products."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jtrust
from jtrust.algorithms.surrogate import Surrogate
from jtrust.algorithms.trees import tree_dot
from jtrust.networks import NetworkConfig, make_policy_network
from jtrust.profiling.probes import act_at_random
from jtrust.training.mesh import SHARDED, STATE_SPEC, compiler_options, per_shard
from jtrust.training.random_keys import environment_keys
from scripts.benchmarks.timing import Row, in_turn, ratios

TASKS = (
    ("inverted_pendulum", "generalized", 256), ("hopper", "spring", 256), ("ant", "mjx", 256),
)
GPU_TASKS = tuple(
    (name, backend, envs)
    for name, backend in (("ant", "generalized"), ("humanoid", "spring"))
    for envs in (2048, 8192)
)


def _at_random(trainer: jtrust.Trainer, state: Any) -> Any:
    keys = environment_keys(state, trainer.collection.envs_per_device)
    return act_at_random(trainer, state, keys)


def limit(gpu: bool, repeats: int) -> Iterator[Row]:
    """Training rate over the rate of random actions in the same environments, in turn."""
    for name, backend, envs in GPU_TASKS if gpu else TASKS:
        env = jtrust.make_env(name, backend=backend)
        trainers = [
            jtrust.make_trainer(env, algorithm, num_envs=envs)
            for algorithm in (jtrust.TRPO(), jtrust.PPO())
        ]
        first = trainers[0]
        random = jax.jit(per_shard(
            functools.partial(_at_random, first),
            first.mesh, (STATE_SPEC,), (SHARDED, SHARDED),
        ))
        programs = {t.algorithm.name: _Training(t) for t in trainers}
        shown = programs[first.algorithm.name]
        found = in_turn({"random": lambda r=random, s=shown: r(s.state), **programs}, repeats)
        free = first.steps_per_iteration / statistics.median(found["random"])
        for label in programs:
            rate = first.steps_per_iteration / statistics.median(found[label])
            yield Row(
                f"{label} over random actions, {name} {backend}, {envs} environments",
                ratios(found["random"], found[label]), f"{rate:,.0f} of {free:,.0f} steps/s",
            )


def states(gpu: bool, repeats: int) -> Iterator[Row]:
    """Random actions in environments whose states hold all that an engine keeps, and only what is
    read (`jtrust.environments.compact`): steps per second, seconds to compile, bytes."""
    for name, backend, envs in (("ant", "mjx", 256), ("hopper", "spring", 256)):
        env = jtrust.make_env(name, backend=backend)
        compact = jtrust.make_trainer(env, jtrust.TRPO(), num_envs=envs)
        programs, seconds, size = {}, {}, {}
        for label, t in (("compact", compact), ("full", dataclasses.replace(
            compact, environment=env
        ))):
            state = t.init(jax.random.key(0))
            lowered = jax.jit(per_shard(
                functools.partial(_at_random, t),
                t.mesh, (STATE_SPEC,), (SHARDED, SHARDED),
            )).lower(state)
            begun = time.perf_counter()
            program = lowered.compile()
            seconds[label] = time.perf_counter() - begun
            size[label] = sum(
                x.nbytes for x in jax.tree.leaves(state.episodes.state)
                if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
            )
            programs[label] = lambda p=program, s=state: p(s)
        found = in_turn(programs, repeats)
        yield Row(
            f"random actions with compact states over full ones, {name} {backend}, {envs} "
            "environments",
            ratios(found["full"], found["compact"]),
            f"compiled in {seconds['compact']:.1f} s and {seconds['full']:.1f} s; "
            f"{size['compact'] / envs:,.0f} and {size['full'] / envs:,.0f} bytes a state",
        )


SEEDS = 5


def seeds(gpu: bool, repeats: int) -> Iterator[Row]:
    """Iterations of several seeds one after another over the same in one program by `vmap`."""
    envs = 2048 if gpu else 64
    for name, backend in (("inverted_pendulum", "generalized"), ("hopper", "spring")):
        trainer = jtrust.make_trainer(
            jtrust.make_env(name, backend=backend), jtrust.TRPO(), num_envs=envs, devices=1
        )
        keys = jax.random.split(jax.random.key(0), SEEDS)
        options = compiler_options(trainer.mesh)
        one, every = (
            jax.jit(f, compiler_options=options)
            for f in (trainer.iterate, jax.vmap(trainer.iterate))
        )
        states = {
            "apart": [trainer.init(key) for key in keys],
            "together": jax.vmap(trainer.init)(keys),
        }

        def apart(one=one, states=states):
            states["apart"] = [one(state)[0] for state in states["apart"]]
            return states["apart"]

        def together(every=every, states=states):
            states["together"] = every(states["together"])[0]
            return states["together"]

        found = in_turn({"apart": apart, "together": together}, repeats)
        milliseconds = {k: 1e3 * statistics.median(v) for k, v in found.items()}
        yield Row(
            f"{SEEDS} seeds in turn over vmap, {name} {backend}, {envs} environments each",
            ratios(found["apart"], found["together"]),
            f"{milliseconds['apart']:.0f} and {milliseconds['together']:.0f} ms an iteration",
        )


class _Training:
    """One more iteration with each call."""

    def __init__(self, trainer: jtrust.Trainer):
        self._iterate = jax.jit(
            trainer.iterate, compiler_options=compiler_options(trainer.mesh)
        )
        self.state = trainer.init(jax.random.key(0))

    def __call__(self) -> dict[str, jax.Array]:
        self.state, metrics = self._iterate(self.state)
        return metrics


def fisher(gpu: bool, repeats: int) -> list[Row]:
    """A Fisher-vector product inside the solver against a gradient, and the ways to make one."""
    return [
        row for states, sizes in ((32768, (256, 256)), (32768, (64, 64)))
        for row in _fisher(states, sizes, repeats)
    ]


def _fisher(states: int, sizes: tuple[int, ...], repeats: int) -> list[Row]:
    on_cpu = jax.devices()[0].platform == "cpu"
    network = make_policy_network(
        NetworkConfig(policy_layers=sizes), 27, jtrust.Box(8), on_cpu=on_cpu
    )
    x = jax.random.normal(jax.random.key(0), (1, states, 27))
    params = network.init(jax.random.key(1), x[0])
    batch = jtrust.algorithms.Batch(
        x, x, jax.random.normal(jax.random.key(2), (1, states, 8)),
        jax.random.normal(jax.random.key(3), (1, states)), jnp.zeros((1, states)),
        jax.random.split(jax.random.key(4), states), on_cpu=on_cpu,
    )
    products = 10

    def repeat(product, vector):
        def step(v, _):
            new = product(v)
            norm = jnp.sqrt(tree_dot(new, new))
            return jax.tree.map(lambda x: x / norm, new), None

        return jax.lax.scan(step, vector, length=products)[0]

    @jax.jit
    def gradient(params, batch):
        return Surrogate(params, network, batch, 0.0, None).gradient()

    @jax.jit
    def linearised(params, batch):
        surrogate = Surrogate(params, network, batch, 0.0, None)
        return repeat(surrogate.fisher(0.1), params)

    @jax.jit
    def reverse_over_reverse(params, batch):
        old = network(params, batch.observation[0])

        def kl(p):
            return jnp.mean(old.kl_divergence(network(p, batch.observation[0])))

        def product(v):
            return jax.grad(lambda p: tree_dot(jax.grad(kl)(p), v))(params)

        return repeat(product, params)

    found = in_turn({
        f.__name__: lambda f=f: f(params, batch)
        for f in (gradient, linearised, reverse_over_reverse)
    }, repeats)
    shape = f"{states} states, 27 inputs, {'x'.join(map(str, sizes))}"
    per_product = [x / products for x in found["linearised"]]
    gradient_ms, product_ms, reverse_ms = (
        1e3 * statistics.median(x) for x in
        (found["gradient"], per_product, [x / products for x in found["reverse_over_reverse"]])
    )
    return [
        Row(f"Fisher-vector product over gradient, {shape}",
            ratios(per_product, found["gradient"]),
            f"{product_ms:.1f} ms and {gradient_ms:.1f} ms"),
        Row(f"reverse-over-reverse over linearised product, {shape}",
            ratios(found["reverse_over_reverse"], found["linearised"]),
            f"{reverse_ms:.1f} ms and {product_ms:.1f} ms"),
    ]
