"""Members as one program: an iteration of all slots, spread over devices."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jtrust import checks
from jtrust.sweeps.members import hyperparameters, told
from jtrust.training import Trainer, TrainState
from jtrust.training.memory import at_its_highest, available, parts_of_memory
from jtrust.training.mesh import AXIS, is_cpu

_MEMBERS = "members"
# Of what a device has; the rest is for what XLA keeps beside programs.
_SHARE = 0.9


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """An iteration of several members at once; each has a slot, [slots, ...] in every array.

    `vmap` over the iteration of one, and `shard_map` over devices, between which nothing is sent.
    What a member comes to does not depend on its slot or on who is in the others, to the bit; it
    does on the number of slots per device, up to rounding.

    Attributes:
      trainer: of one member, on one device; what its varied numbers are does not matter.
      varied: leaves of `hyperparameters` that differ among members.
      slots: how many members; a multiple of the devices.
      devices: each has slots / devices of them.
    """

    trainer: Trainer
    varied: tuple[int, ...]
    slots: int
    devices: tuple[jax.Device, ...]

    @functools.cached_property
    def mesh(self) -> Mesh:
        return Mesh(np.asarray(self.devices), (_MEMBERS,))

    @functools.cached_property
    def sharding(self) -> NamedSharding:
        """Of everything that slots have."""
        return NamedSharding(self.mesh, PartitionSpec(_MEMBERS))

    def init(self, seeds: Sequence[int]) -> TrainState:
        """States before the first iteration, of members with these seeds."""
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        return self._init(jax.device_put(keys, self.sharding))

    @functools.cached_property
    def like(self) -> TrainState:
        """Shapes and types of the states of all slots."""
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), self.slots))
        return jax.eval_shape(self._init, keys)

    @functools.cached_property
    def like_one(self) -> TrainState:
        """The same of one slot."""
        return jax.eval_shape(lambda states: jax.tree.map(lambda x: x[0], states), self.like)

    def placed(self, values: Any) -> Any:
        """Host arrays [slots, ...] on the devices, whose memory a program may overwrite."""
        return self._copy(jax.device_put(values, self.sharding))

    def replaced(self, states: TrainState, mask: np.ndarray, others: TrainState) -> TrainState:
        """`others` where `mask` [slots] says so; `states` are overwritten."""
        return self._replace(jnp.asarray(mask), states, others)

    def lower(self, options: dict[str, Any] | None = None) -> jax.stages.Lowered:
        """The program of an iteration: (varied numbers [slots, varied], states) -> (states,
        metrics [slots]); the states are overwritten. `options` are XLA's."""
        over = self._over_slots(
            lambda values, state: _one_shard(self._told(values).iteration, state)
        )
        values = jax.ShapeDtypeStruct((self.slots, len(self.varied)), jnp.float32)
        values, states = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.sharding),
            (values, self.like),
        )
        return jax.jit(over, donate_argnums=1, compiler_options=options).lower(values, states)

    def evaluation(self, evaluate: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """A function of what one member's policy is made of, for those of all slots."""
        return jax.jit(self._over_slots(evaluate))

    def _told(self, values: jax.Array) -> Trainer:
        leaves, structure = jax.tree.flatten(hyperparameters(self.trainer))
        for i, place in enumerate(self.varied):
            leaves[place] = values[i]
        return told(self.trainer, jax.tree.unflatten(structure, leaves))

    def _over_slots(self, function: Callable) -> Callable:
        spec = PartitionSpec(_MEMBERS)
        # As `per_shard`, without the check that Brax's loops fail.
        return jax.shard_map(
            jax.vmap(function), mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False
        )

    @functools.cached_property
    def _init(self) -> Callable:
        fast = {"xla_backend_optimization_level": 0} if is_cpu(self.mesh) else None
        # One member after the other: a `vmap` would factorise all kernels together, for which CPU
        # devices wait on threads that they themselves hold (`jtrust.runs.cpu_devices`).
        spec = PartitionSpec(_MEMBERS)
        mapped = jax.shard_map(
            lambda keys: jax.lax.map(
                functools.partial(_one_shard, self.trainer.init_shard), keys
            ), mesh=self.mesh, in_specs=spec, out_specs=spec, check_vma=False,
        )
        return jax.jit(mapped, compiler_options=fast)

    @functools.cached_property
    def _copy(self) -> Callable:
        return jax.jit(
            lambda tree: jax.tree.map(jnp.copy, tree), out_shardings=self.sharding
        )

    @functools.cached_property
    def _replace(self) -> Callable:
        def replace(mask: jax.Array, old: TrainState, new: TrainState) -> TrainState:
            def choose(a: jax.Array, b: jax.Array) -> jax.Array:
                return jnp.where(mask.reshape(-1, *[1] * (a.ndim - 1)), b, a)

            return jax.tree.map(choose, old, new)

        return jax.jit(replace, donate_argnums=1, out_shardings=self.sharding)


def _one_shard(function: Callable, argument: Any) -> Any:
    """What is written for one shard of the environments, of all of them: means over the axis are
    means over one, where a mesh of one device each would have the devices wait for each other."""
    found = jax.vmap(function, axis_name=AXIS)(jax.tree.map(lambda x: x[None], argument))
    return jax.tree.map(lambda x: x[0], found)


def rounded_up(count: int, devices: int) -> int:
    """The next number of slots that devices share evenly."""
    return -(-count // devices) * devices


def slots_that_fit(program: Any, devices: Sequence[jax.Device], slots: int) -> tuple[int, str]:
    """How many slots there is room for, judged by a compiled program, and the reason in words.

    Args:
      program: compiled, of `slots`.
      devices: its own.
      slots: what it was compiled for.

    Raises:
      BadArgument: not even one for each device.
    """
    room = available(devices)
    parts = parts_of_memory(program)
    # A checkpoint is written of a copy of the states.
    needed = at_its_highest(parts) + parts["arguments"]
    if room is None or needed <= _SHARE * room:
        return slots, ""
    each = needed / (slots // len(devices))
    fitting = int(_SHARE * room / each)
    why = f"{_gigabytes(each)} each, and {_gigabytes(room)} on a device"
    if fitting < 1:
        raise checks.BadArgument(
            "num_envs", "of one member", f"does not fit into memory: {why}; take fewer"
        )
    return fitting * len(devices), why


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g} GB"
