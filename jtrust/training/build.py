"""Describing a training run: what is given, checked and completed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import flax.linen as nn
import jax

from jtrust import checks
from jtrust.advantages import GAE
from jtrust.algorithms import Algorithm, ValueFit
from jtrust.algorithms.minibatch_sgd import largest_divisor, minibatches_for
from jtrust.environments import describe, make_env, with_action_bins
from jtrust.environments.compact import compact
from jtrust.environments.mjx_devices import use_local_devices_where_loaded
from jtrust.environments.warp_physics import check_devices
from jtrust.networks import NetworkConfig, has_memory
from jtrust.networks.changes import default_gain
from jtrust.training.mesh import default_num_envs, find_devices, make_mesh
from jtrust.training.trainer import Trainer


class ProgramOptions(TypedDict, total=False):
    """The keyword arguments of `make_trainer` but the devices, for what passes them on."""

    num_envs: int | None
    unroll_length: int
    network: NetworkConfig | None
    action_bins: int | None
    policy_network: nn.Module | None
    value_network: nn.Module | None
    gae: GAE | None
    value_fit: ValueFit | None


class TrainerOptions(ProgramOptions, total=False):
    """The keyword arguments of `make_trainer`."""

    devices: Sequence[jax.Device] | int | None


def check_names(function: str, options: Mapping[str, Any], beside: tuple[str, ...] = ()) -> None:
    """Raises TypeError for a keyword that `make_trainer` does not know, as Python itself does."""
    for name in options:
        if name not in TrainerOptions.__annotations__ or name in beside:
            raise TypeError(f"{function}() got an unexpected keyword argument {name!r}")


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
    gae: GAE | None = None,
    value_fit: ValueFit | None = None,
) -> Trainer:
    """Describes a training run.

    Args:
      env: a name for `jtrust.make_env`, an `Environment`, a Brax `Env`, or an object with pure
        `reset(key)` and `step(state, action)`.
      algorithm: `jtrust.TRPO()` or another of jtrust's algorithms, or one of your own.
      num_envs: environments side by side, over all devices; by default 64 on CPUs and 4096 on
        accelerators.
      unroll_length: steps of each per iteration.
      network: shape of the networks.
      action_bins: cut each dimension of continuous actions into this many values, and train a
        categorical policy over each; by default actions stay continuous.
      policy_network: a flax.linen module of your own, normalised observations [..., O] -> a
        distribution of `jtrust.distributions`; docs/do/networks.md has an example.
      value_network: the same, normalised observations [..., O] -> values [...].
      devices: which devices, or how many; by default all.
      gae: how advantages are estimated; by default as the algorithm is told (`discount`, ...).
      value_fit: how values are fitted; by default as the algorithm is told (`value_epochs`, ...).

    Raises:
      BadArgument: an argument that will not do, with what would.
    """
    if jax.config.jax_enable_x64:  # type: ignore[attr-defined]
        raise checks.BadArgument(
            "jax_enable_x64", True, "jtrust trains in float32; unset JAX_ENABLE_X64"
        )
    use_local_devices_where_loaded()
    environment = make_env(env) if isinstance(env, str) else describe(env, type(env).__name__)
    environment = compact(with_action_bins(environment, action_bins))
    algorithm = _instance("algorithm", algorithm, Algorithm, "such as jtrust.TRPO()")
    algorithm.check_environment(environment)
    network = _instance("network", network or NetworkConfig(), NetworkConfig)
    if network.memory is not None and network.change_gain is None:
        network = dataclasses.replace(network, change_gain=default_gain(environment.dt))
    gae = algorithm.gae() if gae is None else _instance("gae", gae, GAE)
    value_fit = (
        algorithm.value_fit() if value_fit is None
        else _instance("value_fit", value_fit, ValueFit)
    )
    if num_envs is None:
        num_envs = default_num_envs(find_devices(devices))
    num_envs = checks.whole_number("num_envs", num_envs, maximum=2**24, example=64)
    unroll_length = checks.whole_number("unroll_length", unroll_length, maximum=2**15, example=64)
    mesh = make_mesh(devices, num_envs)
    check_devices(environment, mesh.devices.flat)
    shares = _Shares(
        num_envs, unroll_length, mesh.size, has_memory(network, policy_network),
        has_memory(network, value_network),
    )
    trainer = Trainer(
        environment, shares.settle(algorithm), gae, shares.settle_values(value_fit), num_envs,
        unroll_length, network, mesh, policy_network, value_network,
    )
    # Which refuse modules that will not do.
    _ = trainer.policy_network, trainer.value_network, trainer.constraints
    return trainer


def _instance(name: str, value: Any, cls: type, like: str = "") -> Any:
    if not isinstance(value, cls):
        what = {"algorithm": "an algorithm, "}.get(name, f"a jtrust.{cls.__name__}")
        raise checks.BadArgument(name, value, f"must be {what}{like}")
    return value


@dataclasses.dataclass(frozen=True)
class _Shares:
    """How a rollout is shared among devices, parts and minibatches.

    Attributes:
      num_envs: over all devices.
      unroll_length: steps of each.
      devices: how many.
      policy_in_order, value_in_order: whether that network reads steps in their order, so that its
        minibatches are of whole environments.
    """

    num_envs: int
    unroll_length: int
    devices: int
    policy_in_order: bool = False
    value_in_order: bool = False

    def settle(self, algorithm: Algorithm) -> Algorithm:
        """The algorithm `settled` for such rollouts.

        Raises:
          BadArgument: where parts or minibatches would not be of one size on every device.
        """
        settled = algorithm.settled(self.num_envs, self.unroll_length)
        envs = self.num_envs // self.devices
        if envs % settled.parts:
            self._refuse_parts(algorithm, settled.parts)
        for name in algorithm.minibatched:
            self._check_minibatches(
                name, getattr(algorithm, name), getattr(settled, name), self.policy_in_order,
                settled.parts,
            )
        return settled

    def settle_values(self, value_fit: ValueFit) -> ValueFit:
        """The same of the values' fit, which takes a rollout whole."""
        settled = value_fit.settled(self.num_envs, self.unroll_length)
        self._check_minibatches(
            "value_minibatches", value_fit.minibatches, settled.minibatches, self.value_in_order
        )
        return settled

    def _refuse_parts(self, algorithm: Algorithm, parts: int) -> None:
        envs = self.num_envs // self.devices
        if parts != algorithm.parts:
            raise checks.BadArgument(
                "devices", self.devices,
                f"cannot share the {parts} parts of {self.num_envs} environments evenly; take "
                f"fewer devices, or give parts, such as {largest_divisor(envs, parts)}",
            )
        raise checks.BadArgument(
            "parts", algorithm.parts, f"must divide the environments (num_envs {self.num_envs}"
            f"{self._of_devices}), such as {largest_divisor(envs, algorithm.parts)}",
        )

    def _check_minibatches(
        self, name: str, given: int | None, count: int | None, in_order: bool, parts: int = 1
    ) -> None:
        of_parts = f" / {parts} parts" if parts > 1 else ""
        if in_order:
            self._check_environments(name, given, count, parts, of_parts)
            return
        steps = self.num_envs // self.devices // parts * self.unroll_length
        if given is not None and steps % given:
            raise checks.BadArgument(
                name, given,
                f"must divide the {steps} steps of a rollout (num_envs {self.num_envs} x "
                f"unroll_length {self.unroll_length}{self._of_devices}{of_parts}), such as "
                f"{largest_divisor(steps, given)}",
            )
        count = count or minibatches_for(self.num_envs // parts * self.unroll_length)
        if given is None and steps % count:
            raise checks.BadArgument(
                "devices", self.devices,
                f"cannot share the {count} minibatches of {self.num_envs} environments x "
                f"{self.unroll_length} steps{of_parts} evenly; take fewer devices, or give {name}, "
                f"such as {largest_divisor(steps, count)}",
            )

    def _check_environments(
        self, name: str, given: int | None, count: int | None, parts: int, of_parts: str
    ) -> None:
        """The same where a network has a memory: each minibatch has whole environments."""
        envs = self.num_envs // self.devices // parts
        if count is None:
            wanted = minibatches_for(self.num_envs // parts * self.unroll_length)
            count = largest_divisor(self.num_envs // parts, wanted)
        if envs % count == 0:
            return
        if given is None and self.devices > 1:
            raise checks.BadArgument(
                "devices", self.devices,
                f"cannot share the {count} minibatches of whole environments, as a network with "
                f"memory takes them, of {self.num_envs} environments{of_parts} evenly; take fewer "
                f"devices, or give {name}, such as {largest_divisor(envs, count)}",
            )
        raise checks.BadArgument(
            name, given or count,
            f"must divide the environments, for a network with memory takes minibatches of "
            f"whole ones (num_envs {self.num_envs}{self._of_devices}{of_parts}), such as "
            f"{largest_divisor(envs, count)}",
        )

    @property
    def _of_devices(self) -> str:
        return f" / {self.devices} devices" if self.devices > 1 else ""
