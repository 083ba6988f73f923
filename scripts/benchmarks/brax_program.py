"""The program of brax's own PPO for devices that are not here."""

from __future__ import annotations

import contextlib
import time
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jtrust.planning.compilation import Compiled, compile_lowered


class _Found(Exception):
    """Carries brax's training epoch and the shapes of its arguments out of its `train`."""


def compile_brax_ppo(environment: Any, settings: dict[str, Any], devices: list) -> Compiled:
    """Compiles one training step of `ppo.train(environment, **settings)`; nothing runs.

    What follows brax's reset is that step, over all devices: rollout, statistics and gradient
    steps, for `batch_size * num_minibatches * unroll_length * action_repeat` environment steps.
    """
    epoch, shapes = _training_epoch(_scoped(environment), settings, len(devices))
    mesh = Mesh(np.asarray(devices), ("i",))  # brax's name for the axis
    by_device = PartitionSpec("i")

    def of_one(*args: Any) -> Any:
        args = jax.tree.map(lambda x: x[0], args)
        return jax.tree.map(lambda x: x[None], epoch(*args))

    program = jax.jit(
        jax.shard_map(
            of_one, mesh=mesh, in_specs=by_device, out_specs=by_device, check_vma=False
        ),
        donate_argnums=(0, 1),
    )
    placed = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=NamedSharding(mesh, by_device)
        ), shapes,
    )
    start = time.perf_counter()
    return compile_lowered(program.lower(*placed), start)


def _scoped(environment: Any) -> Any:
    """The environment with its step under the name that jtrust's has."""
    step = environment.step

    def named(*args: Any) -> Any:
        with jax.named_scope("physics"):
            return step(*args)

    environment.step = named
    return environment


def _training_epoch(environment: Any, settings: dict[str, Any], count: int) -> tuple[Any, tuple]:
    """brax's epoch of one training step, and the shapes of what it is called with.

    brax's `train` runs as it is up to that call, with shapes in place of arrays: where it would map
    a function over devices, the function is kept (the epoch) or evaluated abstractly (the reset).
    """
    from brax.training.agents.ppo import train as ppo

    def replicated(tree: Any, devices: list) -> Any:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype),
            jax.tree.map(jnp.asarray, tree),
        )

    def pmap(function: Any, axis_name: str, **_: Any) -> Any:
        def called(*args: Any) -> Any:
            if function.__name__ == "training_epoch":
                raise _Found(function, args)
            return jax.eval_shape(jax.vmap(function), *args)
        return called

    per_step = settings["batch_size"] * settings["num_minibatches"] * settings["unroll_length"]
    with contextlib.ExitStack() as stack:
        for place, name, value in (
            (jax, "pmap", pmap), (jax, "local_device_count", lambda: count),
            (jax, "device_put_replicated", replicated),
            (ppo, "_unpmap", lambda tree: tree), (ppo, "_strip_weak_type", lambda tree: tree),
        ):
            # `create`: this JAX has no device_put_replicated any more.
            stack.enter_context(mock.patch.object(place, name, value, create=True))
        try:
            ppo.train(
                environment=environment, num_timesteps=per_step * settings["action_repeat"],
                num_evals=2, run_evals=False, seed=0, **settings,
            )
        except _Found as found:
            return found.args
    raise RuntimeError("brax's train ended without its training epoch")
