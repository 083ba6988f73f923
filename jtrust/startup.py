"""Before the first iteration: which devices JAX has, and what keeps the start short."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator

import jax

from jtrust import checks


def check_platform() -> None:
    """Starts JAX where JAX_PLATFORMS says that it should run.

    Without that variable, or with the CPU's name, it always starts, and is left alone until it
    has something to compute.

    Raises:
      BadArgument: there is no such device on this machine.
    """
    wanted = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not wanted or wanted == "cpu":
        return
    try:
        jax.devices()
    except Exception as error:  # an AssertionError without a word, for one
        lines = str(error).strip().splitlines()
        reason = lines[0].partition(" (set JAX_PLATFORMS")[0] if lines else "no such device"
        raise checks.BadArgument(
            "JAX_PLATFORMS", wanted,
            f"JAX does not start on it here: {reason}; unset it for the best that there is, or "
            "JAX_PLATFORMS=cpu",
        ) from error


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keeps Python's garbage collector still.

    Imports and tracing make a million small objects of which most stay; looking through all of
    them again and again took a third of their time.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()
