"""jtrust beside other trainers, in the same process and in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

import jtrust
from jtrust.networks import NetworkConfig, make_policy_network
from jtrust.training.mesh import compiler_options
from scripts.benchmarks import brax_ppo
from scripts.benchmarks.timing import Row, in_turn, ratios

WORK = brax_ppo.EQUAL_WORK
TASKS = (("hopper", "spring", 512), ("inverted_pendulum", "generalized", 2048))
GPU_TASKS = (("ant", "spring", 2048), ("ant", "spring", 8192))


def equal_ppo() -> jtrust.PPO:
    """jtrust's PPO with as many passes and minibatches as `EQUAL_WORK`, for the values too."""
    return jtrust.PPO(
        epochs=WORK["epochs"], minibatches=WORK["minibatches"], value_epochs=WORK["epochs"],
        value_minibatches=WORK["minibatches"],
    )


def equal_arguments(envs: int) -> dict[str, Any]:
    """`EQUAL_WORK` as arguments of `jtrust.train` and `jtrust.make_trainer`."""
    return {
        "algorithm": equal_ppo(), "num_envs": envs, "unroll_length": WORK["unroll_length"],
        "network": NetworkConfig(policy_layers=WORK["layers"], value_layers=WORK["layers"]),
    }


def equal_trainer(name: str, backend: str, envs: int) -> jtrust.Trainer:
    return jtrust.make_trainer(jtrust.make_env(name, backend=backend), **equal_arguments(envs))


def brax(gpu: bool, repeats: int) -> Iterator[Row]:
    """jtrust PPO over brax PPO on the same work, at their steady rates."""
    for name, backend, envs in GPU_TASKS if gpu else TASKS:
        yield _steady(name, backend, envs, repeats)


def _steady(name: str, backend: str, envs: int, repeats: int) -> Row:
    """Both train the same number of steps in turn: ours whenever brax reports an epoch done."""
    trainer = equal_trainer(name, backend, envs)
    from brax import envs as brax_envs  # behind jtrust's, which keeps its notices quiet

    per_epoch = max(131_072 // trainer.steps_per_iteration, 1)
    iterate = jax.jit(
        trainer.iterate, donate_argnums=0, compiler_options=compiler_options(trainer.mesh)
    )
    state, _ = iterate(trainer.init(jax.random.key(0)))
    box = [jax.block_until_ready(state)]
    ours: list[float] = []
    theirs: list[float] = []
    clock = [0.0]

    def on_epoch(_, metrics):
        theirs.append(metrics["training/walltime"] - clock[0])
        clock[0] = metrics["training/walltime"]
        start = time.perf_counter()
        for _ in range(per_epoch):
            box[0], _ = iterate(box[0])
        jax.block_until_ready(box[0])
        ours.append(time.perf_counter() - start)

    steps = per_epoch * trainer.steps_per_iteration
    warm_up = 2  # brax compiles in its first two epochs
    environment = brax_envs.get_environment(name, backend=backend)
    settings = brax_ppo.equal_work(envs, steps * (repeats + warm_up), repeats + warm_up)
    brax_ppo.train(environment, progress_fn=on_epoch, **settings)
    ours, theirs = ours[warm_up:], theirs[warm_up:]
    mine, other = (steps / statistics.median(x) for x in (ours, theirs))
    return Row(
        f"jtrust PPO over brax PPO, steady, {name} {backend}, {envs} environments",
        ratios(theirs, ours), f"{mine:,.0f} and {other:,.0f} steps/s",
    )


def sb3(gpu: bool, repeats: int) -> Iterator[Row]:
    """The TRPO policy update over sb3-contrib's on the same batch."""
    if gpu:
        return  # sb3-contrib's tensors would stay on the CPU
    states, inputs, actions = 32768, 27, 8
    try:
        from scripts.benchmarks.sb3_trpo import make_update
    except ImportError as error:
        yield Row("TRPO policy update over sb3-contrib's", [],
                  f"skipped: {error}; pip install 'jtrust[comparisons]'")
        return
    keys = jax.random.split(jax.random.key(0), 5)
    x = jax.random.normal(keys[0], (states // 256, 256, inputs))
    on_cpu = jax.devices()[0].platform == "cpu"
    network = make_policy_network(
        NetworkConfig(), inputs, jtrust.Box(actions), on_cpu=on_cpu
    )
    params = network.init(keys[1], x[0])
    distribution = network(params, x)
    action = distribution.sample(keys[2])
    advantage = jax.random.normal(keys[3], x.shape[:2]) + 0.3 * action[..., 0]
    batch = jtrust.algorithms.Batch(
        x, x, action, (advantage - advantage.mean()) / advantage.std(), jnp.zeros(x.shape[:2]),
        jax.random.split(keys[4], 256), on_cpu=on_cpu,
    )
    theirs = make_update(x.reshape(states, -1), action.reshape(states, -1), batch.advantage.ravel())
    programs = {"sb3-contrib": theirs}
    for label, algorithm in (
        ("Fisher matrix on all states", jtrust.TRPO(fisher_stride=1)), ("defaults", jtrust.TRPO())
    ):
        update = jax.jit(lambda p, b, a=algorithm: a.update((), p, network, b)[::2])
        _, metrics = update(params, batch)
        if not metrics["policy/accepted"]:
            raise RuntimeError("the update was refused: not the work to be timed")
        programs[label] = lambda update=update: update(params, batch)
    found = in_turn(programs, repeats)
    other = found.pop("sb3-contrib")
    for label, seconds in found.items():
        mine, peer = (1e3 * statistics.median(x) for x in (seconds, other))
        yield Row(
            f"TRPO policy update over sb3-contrib's, {states} states, {label}",
            ratios(seconds, other), f"{mine:.0f} ms and {peer:.0f} ms",
        )
