"""brax's own PPO trainer, made to run on a JAX that no longer has what it calls."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# What both trainers do in the comparisons of equal work.
EQUAL_WORK = dict(unroll_length=64, minibatches=16, epochs=4, layers=(64, 64))

# brax's published settings for inverted_pendulum (brax, notebooks/training.ipynb).
PUBLISHED = dict(
    num_timesteps=2_000_000, num_evals=20, reward_scaling=10, episode_length=1000,
    normalize_observations=True, action_repeat=1, unroll_length=5, num_minibatches=32,
    num_updates_per_batch=4, discounting=0.97, learning_rate=3e-4, entropy_cost=1e-2,
    num_envs=2048, batch_size=1024, seed=1,
)


def mend() -> None:
    """Gives JAX back `device_put_replicated`, which brax 0.14.2 calls and JAX 0.10 dropped."""
    if hasattr(jax, "device_put_replicated"):
        return

    def device_put_replicated(tree: Any, devices: list[jax.Device]) -> Any:
        sharding = NamedSharding(Mesh(np.asarray(devices), ("i",)), PartitionSpec("i"))
        return jax.tree.map(
            lambda x: jax.device_put(jnp.stack([jnp.asarray(x)] * len(devices)), sharding), tree
        )

    jax.device_put_replicated = device_put_replicated


def train(environment: Any, **settings: Any) -> Any:
    """brax's `ppo.train` on every device that JAX shows."""
    mend()
    from brax.training.agents.ppo import train as ppo

    return ppo.train(environment=environment, **settings)


def equal_work(num_envs: int, steps: int, epochs: int = 1) -> dict[str, Any]:
    """Settings for `steps` environment steps of the work in `EQUAL_WORK`, in `epochs` parts."""
    from brax.training.agents.ppo import networks

    return dict(
        num_timesteps=steps, num_evals=epochs + 1, run_evals=False, episode_length=1000,
        normalize_observations=True, num_envs=num_envs,
        unroll_length=EQUAL_WORK["unroll_length"],
        batch_size=num_envs // EQUAL_WORK["minibatches"],
        num_minibatches=EQUAL_WORK["minibatches"],
        num_updates_per_batch=EQUAL_WORK["epochs"],
        learning_rate=3e-4, entropy_cost=1e-3, discounting=0.99, seed=0,
        network_factory=functools.partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=EQUAL_WORK["layers"],
            value_hidden_layer_sizes=EQUAL_WORK["layers"],
        ),
    )
