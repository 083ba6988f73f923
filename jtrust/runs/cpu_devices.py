"""On a CPU, one JAX device per core, so that the physics of each share of environments has its own.

XLA spreads little of a physics step over threads: it is many small operations. As two devices, two
cores step two halves of the environments at the same time (measured: docs/performance.md).
"""

from __future__ import annotations

import os

import jax

from jtrust.training.mesh import ON_CPU

# A share narrower than this leaves vector instructions idle.
_LEAST_SHARE = 64


def use_all_cores(num_envs: int | None, devices: int | None, processes: int = 1) -> None:
    """Has JAX show several CPU devices, where it has not been told how many and has not started.

    Changes nothing where XLA_FLAGS names a number, where JAX runs on an accelerator, or where JAX
    has computed already. As many devices as asked for, if there are the cores; otherwise the most
    that divide the environments into shares of 64 or more. Of several processes each has a share
    of both.
    """
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    num_envs = (ON_CPU if num_envs is None else num_envs) // processes
    if isinstance(devices, int):
        devices = max(devices // processes, 1)
    if devices is None:
        fits = [n for n in range(1, (cores or 1) + 1)
                if num_envs % n == 0 and num_envs // n >= _LEAST_SHARE]
        count = max(fits, default=1)
    else:
        count = devices if isinstance(devices, int) and 1 <= devices <= (cores or 1) else 1
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        return  # JAX has started: what it shows is what there is
