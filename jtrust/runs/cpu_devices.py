"""On a CPU, one JAX device per core, so that the physics of each share of environments has its own.

XLA spreads little of a physics step over threads: it is many small operations. As two devices, two
cores step two halves of the environments at the same time (measured: docs/evidence/speed.md).
"""

from __future__ import annotations

import contextlib
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
    if count > 1:
        _start_with_a_spare_thread(max(cores or 1, count))


def use_cores_for_runs(runs: int, devices: int | None) -> None:
    """The same for whole runs side by side, each on one device."""
    use_all_cores(runs * _LEAST_SHARE, devices)


def _start_with_a_spare_thread(busy: int) -> None:
    """Starts JAX with one thread more than its CPU devices can hold.

    A large batch of factorisations is shared among XLA's threads, and the device that asked for it
    waits on one of them. Where every device waits so and no thread is left, they wait for ever
    (jax 0.10.2: Cholesky of 1024 matrices 27 x 27 on each of two devices on two cores).
    """
    if "NPROC" in os.environ:  # from which XLA takes the number of its threads
        return
    os.environ["NPROC"] = str(busy + 1)
    try:
        with contextlib.suppress(Exception):  # told where devices are asked for
            jax.devices()
    finally:
        del os.environ["NPROC"]
