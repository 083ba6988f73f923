"""JAX's plugins for accelerators that this machine does not have.

The extras of `jtrust plan` bring XLA's compilers for GPUs and TPUs, and JAX takes each for a sign
of a device to train on: without one it shows a traceback of a missing cuDNN, and libtpu complains.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pkgutil
import sys
from pathlib import Path

import jax

# Where Linux shows devices: NVIDIA's (also under WSL and on Jetson), AMD's, TPUs.
_DEVICES = ("nvidia*", "dxg", "nvhost*", "nvmap", "kfd", "accel*", "vfio/[0-9]*")
_OF_NVIDIA = ("xla_cuda12", "xla_cuda13")


def without_absent_accelerators(devices: str = "/dev") -> None:
    """Has JAX, which has not started, use the CPU where there is nothing else to use.

    Changes nothing where JAX has been told what to use, where any accelerator might be, or where a
    plugin is installed that is not known here.

    Args:
      devices: the directory in which Linux shows them.
    """
    if sys.platform != "linux" or jax.config.jax_platforms:  # type: ignore[attr-defined]
        return
    plugins = installed_plugins()
    has_libtpu = importlib.util.find_spec("libtpu") is not None
    if not (plugins or has_libtpu) or not plugins.issubset(_OF_NVIDIA):
        return
    if not any(True for pattern in _DEVICES for _ in Path(devices).glob(pattern)):
        jax.config.update("jax_platforms", "cpu")


def installed_plugins() -> set[str]:
    """Names of JAX's plugins, by both ways in which JAX finds them."""
    package = importlib.util.find_spec("jax_plugins")
    places = package.submodule_search_locations if package else ()
    found = {module.name for module in pkgutil.iter_modules(places)}
    entries = importlib.metadata.entry_points(group="jax_plugins")
    return found | {entry.value.rpartition(".")[2] for entry in entries}
