"""Models on a device of this process, where a run has several processes.

MJX puts a model on `jax.devices()[0]`, which is the first process's: every other process would
close over what it cannot read (mujoco-mjx 3.17, "Closing over jax.Array that spans non-addressable
devices").
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import jax

_MODULE = "mujoco.mjx._src.io"


class _Local:
    """`jax`, for MJX's module alone, with the devices of this process."""

    def devices(self, backend: str | None = None) -> list[jax.Device]:
        return jax.local_devices(backend=backend)

    def __getattr__(self, name: str) -> Any:
        return getattr(jax, name)


def use_local_devices() -> None:
    """Has MJX put models on this process's devices from now on, if there are several processes."""
    if jax.distributed.is_initialized():
        setattr(importlib.import_module(_MODULE), "jax", _Local())  # noqa: B010 - mypy knows no such


def use_local_devices_where_loaded() -> None:
    """The same, where a user's own environment has brought MJX; for models still to be put."""
    if _MODULE in sys.modules:
        use_local_devices()
