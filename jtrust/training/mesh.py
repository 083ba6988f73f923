"""One mesh axis, `envs`: every device holds an equal share of the environments."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jtrust import checks
from jtrust.startup import check_platform
from jtrust.training.state import TrainState

AXIS = "envs"
# Of any type: in `STATE_SPEC` they stand where a state has arrays.
REPLICATED: Any = PartitionSpec()
SHARDED: Any = PartitionSpec(AXIS)

# Which parts of the state are spread over the devices: a prefix of the pytree.
STATE_SPEC = TrainState(
    policy=REPLICATED, value=REPLICATED, policy_optimizer=REPLICATED, value_optimizer=REPLICATED,
    observation_statistics=REPLICATED, target_statistics=REPLICATED, episodes=SHARDED,
    last_episodes=REPLICATED, rewards_seen=REPLICATED, key=REPLICATED, iteration=REPLICATED,
    costs=REPLICATED,
)


# Environments where no number is given: what two networks and one core have something to do with,
# and what fills an accelerator, which takes hardly longer for thousands than for one.
ON_CPU, _ON_ACCELERATOR = 64, 4096


def default_num_envs(devices: Sequence[jax.Device]) -> int:
    """How many environments a run has in all where nothing is said: 64 on CPUs, however many; on
    accelerators 4096, or the next number that all of them share in whole eighths."""
    if devices[0].platform == "cpu":
        return ON_CPU
    multiple = 8 * len(devices)
    return -(-_ON_ACCELERATOR // multiple) * multiple


def find_devices(devices: Sequence[jax.Device] | int | None) -> list[jax.Device]:
    """`devices`: a sequence, how many of those there are, or None for all of them.

    Raises:
      BadArgument: more devices than there are, or a sequence of none or of anything else.
    """
    check_platform()
    if devices is None:
        return jax.devices()
    if isinstance(devices, Sequence):
        # Those of a machine that is not here have another class, and a platform too.
        if not devices or not all(hasattr(device, "platform") for device in devices):
            raise checks.BadArgument(
                "devices", devices, "must be some of jax.devices(), or how many of them"
            )
        check_processes(devices)
        return list(devices)
    count = checks.whole_number("devices", devices, maximum=len(jax.devices()), example=1)
    return _of_each_process(count)


def check_processes(devices: Sequence[jax.Device]) -> None:
    """Raises `BadArgument` for devices that leave some processes of the run out, or this one."""
    processes = {getattr(device, "process_index", 0) for device in devices}
    if len(processes) < jax.process_count() and processes != {jax.process_index()}:
        raise checks.BadArgument(
            "devices", devices,
            f"must be of all {jax.process_count()} processes, or of this one alone",
        )


def _of_each_process(count: int) -> list[jax.Device]:
    """The first `count` devices of all processes, as many of each."""
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices():
        by_process.setdefault(device.process_index, []).append(device)
    share, left = divmod(count, len(by_process))
    least = min(map(len, by_process.values()))
    if left or share > least:
        raise checks.BadArgument(
            "devices", count,
            f"must be as many of each of the {len(by_process)} processes, up to {least}: a "
            f"multiple of {len(by_process)}",
        )
    return [device for process in sorted(by_process) for device in by_process[process][:share]]


def make_mesh(devices: Sequence[jax.Device] | int | None, num_envs: int) -> Mesh:
    """A mesh over `find_devices(devices)`.

    Raises:
      BadArgument: more devices than there are, or a number that does not divide `num_envs`.
    """
    devices = find_devices(devices)
    if num_envs % len(devices):
        raise checks.BadArgument(
            "num_envs", num_envs, f"must be a multiple of the number of devices, {len(devices)}"
        )
    return Mesh(np.asarray(devices), (AXIS,))


def compiler_options(mesh: Mesh) -> dict[str, int]:
    """For `jax.jit` of an iteration on these devices: what XLA's own defaults would not do.

    On a GPU XLA times candidates for each product of matrices and keeps the fastest. What wins
    differs from process to process, and with it the order of sums: the same seed gave another run,
    and a resumed run was not the unbroken one (H200, jax 0.11.2). Without it both are the same to
    the bit, and an iteration compiled in 39 s instead of 311 (docs/evidence/speed.md). A user's own
    `--xla_gpu_autotune_level` in XLA_FLAGS is left as it is.
    """
    if mesh.devices.flat[0].platform != "gpu" or "xla_gpu_autotune_level" in os.environ.get(
        "XLA_FLAGS", ""
    ):
        return {}
    return {"xla_gpu_autotune_level": 0}


def doubtful_flags(mesh: Mesh) -> str | None:
    """One line about flags for XLA under which results came out wrong; None without them."""
    flag = "--xla_gpu_deterministic_ops"
    given = [f for f in os.environ.get("XLA_FLAGS", "").split() if f.partition("=")[0] == flag]
    if mesh.devices.flat[0].platform != "gpu" or not given or given[-1].lower().endswith(
        ("=false", "=0")
    ):
        return None
    return (
        f"XLA_FLAGS has {flag}, with which physics came out wrong (jax 0.11.2, H200); a run "
        "repeats to the bit without it"
    )


def is_cpu(mesh: Mesh) -> bool:
    """Whether its devices are CPUs."""
    return mesh.devices.flat[0].platform == "cpu"


def per_shard(function: Callable, mesh: Mesh, in_specs: Any, out_specs: Any) -> Callable:
    """`function`, written for one shard, over the whole mesh."""
    # Brax's own loops carry constants in, which the check of replication does not follow.
    sharded = jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )

    @functools.wraps(sharded)
    def call(*args: Any) -> Any:
        if mesh.size == 1 and jax.config.jax_disable_jit:  # type: ignore[attr-defined]
            return _as_one_shard(function, mesh, args)
        return sharded(*args)

    return call


def _as_one_shard(function: Callable, mesh: Mesh, args: tuple) -> Any:
    """`function` of one shard without `shard_map`, which compiles each operation anew each time
    where nothing is compiled as a whole: a `vmap` over one gives the axis its name as well."""
    with jax.default_device(mesh.devices.flat[0]):
        result = jax.vmap(function, axis_name=AXIS)(*jax.tree.map(lambda x: x[None], args))
        return jax.tree.map(lambda x: x[0], result)


def local(array: Any) -> Any:
    """What every device holds alike, on one of this process: no program on it needs the others."""
    whole = isinstance(array, jax.core.Tracer) or not isinstance(array, jax.Array)
    if whole or array.is_fully_addressable:
        return array
    return array.addressable_data(0)


def environment_index(count: int) -> jax.Array:
    """Numbers of this shard's `count` environments among all, [count]."""
    return jax.lax.axis_index(AXIS) * count + jnp.arange(count)


def all_shards(tree: Any) -> Any:
    """What all shards hold, [N / devices, ...] each leaf, on every shard: [N, ...]."""

    def gathered(x: jax.Array) -> jax.Array:
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = gathered(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x))
        return jax.lax.all_gather(x, AXIS, tiled=True)

    return jax.tree.map(gathered, tree)
