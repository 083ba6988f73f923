"""Brax's own environments."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

from jtrust import checks
from jtrust.environments.base import Environment, describe

BACKENDS = ("generalized", "spring", "positional", "mjx")
_ONE_BACKEND = {"swimmer": ("generalized",), "fast": ()}


def _brax_envs() -> Any:
    """`brax.envs`, imported without the notices that it and mujoco print on standard output."""
    with contextlib.redirect_stdout(io.StringIO()):
        from brax import envs
    return envs


def names() -> list[str]:
    """The names that `make` takes."""
    return sorted(_brax_envs()._envs)


def backends(name: str) -> tuple[str, ...]:
    """The physics backends of an environment, its default first; none where it has no physics."""
    return _ONE_BACKEND.get(name, BACKENDS)


def make(name: str, *, backend: str | None = None, **options: Any) -> Environment:
    """Makes a Brax environment.

    Args:
      name: one of `names()`.
      backend: one of `backends(name)`; by default Brax's own choice for it.
      **options: `episode_length`, and what the environment's class takes.
    """
    envs = _brax_envs()
    checks.one_of("ENV", name, names(), "Brax environment")
    given = dict(options)
    if backend is not None:
        if not backends(name):
            raise checks.BadArgument("backend", backend, f"{name} has no physics; leave it out")
        checks.one_of("backend", backend, backends(name), f"backend of brax/{name}")
        given["backend"] = backend
    _mend_fluid()
    episode = {k: given.pop(k) for k in ("episode_length",) if k in given}
    try:
        with warnings.catch_warnings(), _no_mujoco_log():
            # Each System that is made warns that Brax's own physics is no longer developed.
            warnings.filterwarnings("ignore", message="Brax System", category=UserWarning)
            env = envs.get_environment(name, **given)
    except TypeError as error:
        # An unknown keyword reaches the base class, whose complaint names it.
        raise checks.BadArgument("options", options, f"brax/{name} refuses it: {error}") from error
    stored = {**given, **episode}
    return describe(env, f"brax/{name}", options=stored, **episode)


@contextlib.contextmanager
def _no_mujoco_log() -> Iterator[None]:
    """Keeps mujoco from writing MUJOCO_LOG.TXT into the user's folder over Brax's model files."""
    import mujoco

    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def _mend_fluid() -> None:
    """Lets `swimmer` run where `jax.numpy.clip` no longer takes `a_min` (brax 0.14.2).

    Only the name `jp` inside `brax.fluid` changes; jax.numpy stays as it is.
    """
    from brax import fluid

    if fluid.jp is not jnp or "a_min" in inspect.signature(jnp.clip).parameters:
        return

    class NumpyWithOldClip:
        def __getattr__(self, name: str) -> Any:
            return getattr(jnp, name)

        @staticmethod
        def clip(x, a_min=None, a_max=None, **kwargs):
            return jnp.clip(x, kwargs.get("min", a_min), kwargs.get("max", a_max))

    fluid.jp = NumpyWithOldClip()
