"""Packages that are not always installed, and their noise."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import io
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from jtrust import checks


@functools.cache
def import_extra(module: str, extra: str) -> ModuleType:
    """Imports a package without the notices that it prints on standard output.

    Raises:
      BadArgument: it, or something that it needs, is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return importlib.import_module(module)
    except ImportError as error:
        raise checks.BadArgument(
            "ENV", f"{extra}/...", f"needs an extra ({error}); pip install 'jtrust[{extra}]'"
        ) from error


def refuse_hidden_warp(suite: str) -> None:
    """Raises `BadArgument` where a file of the user's is found in place of NVIDIA's Warp.

    MuJoCo's JAX imports `warp` wherever it finds it, runs what is there, and breaks.
    """
    spec = importlib.util.find_spec("warp")
    if spec is None or spec.origin is None:
        return
    if not Path(spec.origin).with_name("config.py").exists():
        raise checks.BadArgument(
            "ENV", f"{suite}/...",
            f"{spec.origin} hides the package warp, which MuJoCo imports; rename it",
        )


@contextlib.contextmanager
def no_mujoco_log() -> Iterator[None]:
    """Keeps mujoco from writing MUJOCO_LOG.TXT into the user's folder over a model file."""
    import mujoco

    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)
