"""Describing a training run: what is given, checked and completed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax

from jtrust import checks
from jtrust.algorithms import Algorithm
from jtrust.algorithms.minibatches import largest_divisor, minibatches_for
from jtrust.environments import describe, make_env, with_action_bins
from jtrust.environments.base import select
from jtrust.environments.compact import compact
from jtrust.environments.warp_physics import check_devices
from jtrust.networks import NetworkConfig
from jtrust.own_networks import own_policy, own_value
from jtrust.training.loop import Trainer
from jtrust.training.mesh import default_num_envs, find_devices, make_mesh


def make_trainer(
    env: Any,
    algorithm: Algorithm,
    *,
    num_envs: int | None = None,
    unroll_length: int = 64,
    network: NetworkConfig | None = None,
    action_bins: int | None = None,
    policy_network: nn.Module | None = None,
    value_network: nn.Module | None = None,
    devices: Sequence[jax.Device] | int | None = None,
) -> Trainer:
    """Describes a training run.

    Args:
      env: a name for `jtrust.make_env`, an `Environment`, a Brax `Env`, or an object with pure
        `reset(key)` and `step(state, action)`.
      algorithm: `jtrust.TRPO()`, `NPG`, `PPO` or `PPOPenalty`.
      num_envs: environments side by side, over all devices; by default 64 on CPUs and 4096 on
        accelerators.
      unroll_length: steps of each per iteration.
      network: shape of the networks.
      action_bins: cut each dimension of continuous actions into this many values, and train a
        categorical policy over each; by default actions stay continuous.
      policy_network: a flax.linen module of your own, normalised observations [..., O] -> a
        distribution of `jtrust.distributions`; docs/networks.md has an example.
      value_network: the same, normalised observations [..., O] -> values [...].
      devices: which devices, or how many; by default all.

    Raises:
      BadArgument: an argument that will not do, with what would.
    """
    if jax.config.jax_enable_x64:
        raise checks.BadArgument(
            "jax_enable_x64", True, "jtrust trains in float32; unset JAX_ENABLE_X64"
        )
    environment = make_env(env) if isinstance(env, str) else describe(env, type(env).__name__)
    environment = compact(with_action_bins(environment, action_bins))
    if not isinstance(algorithm, Algorithm):
        raise checks.BadArgument(
            "algorithm", algorithm, "must be an algorithm, such as jtrust.TRPO()"
        )
    if num_envs is None:
        num_envs = default_num_envs(find_devices(devices))
    num_envs = checks.whole_number("num_envs", num_envs, maximum=2**24, example=64)
    unroll_length = checks.whole_number("unroll_length", unroll_length, maximum=2**15, example=64)
    network = network or NetworkConfig()
    if not isinstance(network, NetworkConfig):
        raise checks.BadArgument("network", network, "must be a jtrust.NetworkConfig")
    mesh = make_mesh(devices, num_envs)
    check_devices(environment, mesh.devices.flat)
    algorithm = fitting(algorithm, num_envs, unroll_length, mesh.size)
    policy_inputs, value_inputs = (
        select(environment.observation, key).shape[-1]
        for key in (environment.policy_key, environment.value_key)
    )
    return Trainer(
        environment, algorithm, num_envs, unroll_length, network, mesh,
        own_policy(policy_network, policy_inputs, environment.action),
        own_value(value_network, value_inputs),
    )


def fitting(
    algorithm: Algorithm, num_envs: int, unroll_length: int, devices: int
) -> Algorithm:
    """The algorithm `settled` for such rollouts.

    Raises:
      BadArgument: where parts or minibatches would not be of one size on every device.
    """
    envs = num_envs // devices
    settled = algorithm.settled(num_envs, unroll_length)
    of_devices = f" / {devices} devices" if devices > 1 else ""
    if envs % settled.parts:
        if settled.parts != algorithm.parts:
            raise checks.BadArgument(
                "devices", devices,
                f"cannot share the {settled.parts} parts of {num_envs} environments evenly; take "
                f"fewer devices, or give parts, such as {largest_divisor(envs, settled.parts)}",
            )
        raise checks.BadArgument(
            "parts", algorithm.parts, f"must divide the environments (num_envs {num_envs}"
            f"{of_devices}), such as {largest_divisor(envs, algorithm.parts)}",
        )
    for name, given in algorithm.all_minibatches().items():
        parts = 1 if name.startswith("value") else settled.parts
        of_parts = f" / {parts} parts" if parts > 1 else ""
        steps = envs // parts * unroll_length
        count = getattr(settled, name)
        if given is not None and steps % given:
            raise checks.BadArgument(
                name, given,
                f"must divide the {steps} steps of a rollout (num_envs {num_envs} x "
                f"unroll_length {unroll_length}{of_devices}{of_parts}), such as "
                f"{largest_divisor(steps, given)}",
            )
        count = count or minibatches_for(num_envs // parts * unroll_length)
        if given is None and steps % count:
            raise checks.BadArgument(
                "devices", devices,
                f"cannot share the {count} minibatches of {num_envs} environments x "
                f"{unroll_length} steps{of_parts} evenly; take fewer devices, or give {name}, such "
                f"as {largest_divisor(steps, count)}",
            )
    return settled
