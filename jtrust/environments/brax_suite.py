"""Brax's own environments."""

from __future__ import annotations

import contextlib
import inspect
import io
import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.environments.base import Environment, describe, split_options
from jtrust.environments.extras import no_mujoco_log, refuse_hidden_warp
from jtrust.environments.mjx_devices import use_local_devices
from jtrust.environments.randomization import Randomized, Randomizer

BACKENDS = ("generalized", "spring", "positional", "mjx")
_ONE_BACKEND = {"swimmer": ("generalized",), "fast": ()}


def _brax_envs() -> Any:
    """`brax.envs`, imported without the notices that it and mujoco print on standard output."""
    refuse_hidden_warp("brax")
    with contextlib.redirect_stdout(io.StringIO()):
        from brax import envs
    return envs


def names() -> list[str]:
    """The names that `make` takes."""
    return sorted(_brax_envs()._envs)


def backends(name: str) -> tuple[str, ...]:
    """The physics backends of an environment, its default first; none where it has no physics."""
    return _ONE_BACKEND.get(name, BACKENDS)


def remark(name: str) -> str:
    """What a list of the environments says beside this one."""
    return "" if backends(name) else "(no physics)"


def make(
    name: str, /, *, backend: str | None = None, domain_randomization: bool = False,
    randomizer: Randomizer | None = None, **options: Any,
) -> Environment:
    """Makes a Brax environment.

    Args:
      name: one of `names()`.
      backend: one of `backends(name)`; by default Brax's own choice for it.
      domain_randomization: must be False without `randomizer`; Brax has no randomisers of its own.
      randomizer: gives every environment its own physical model: (system, keys [N]) ->
        (system, in_axes).
      **options: `describe`'s, and what the environment's class takes.
    """
    envs = _brax_envs()
    checks.one_of("ENV", name, names(), "Brax environment")
    if domain_randomization and randomizer is None:
        raise checks.BadArgument(
            "domain_randomization", domain_randomization,
            f"brax/{name} has no randomiser of its own; give one as randomizer=",
        )
    common, given = split_options(options)
    if backend is not None:
        if not backends(name):
            raise checks.BadArgument("backend", backend, f"{name} has no physics; leave it out")
        checks.one_of("backend", backend, backends(name), f"backend of brax/{name}")
        given["backend"] = backend
    _mend_fluid()
    use_local_devices()
    try:
        with warnings.catch_warnings(), no_mujoco_log(), _no_copies():
            # Each System that is made warns that Brax's own physics is no longer developed.
            warnings.filterwarnings("ignore", message="Brax System", category=UserWarning)
            env = envs.get_environment(name, **given)
    except TypeError as error:
        for option in given:
            checks.one_of(option, option, _options(envs._envs[name]), f"option of brax/{name}")
        raise checks.BadArgument("options", options, f"brax/{name} refuses it: {error}") from error
    label, stored = f"brax/{name}", {**given, **common}
    if randomizer is not None:
        if not backends(name):
            raise checks.BadArgument("randomizer", randomizer, f"{label} has no physics")
        env, label = Randomized(env, "sys", randomizer), f"{label}+randomizer"
    return describe(env, label, options=stored, **common)


def _options(kind: type) -> list[str]:
    """What a class and those that it inherits from take, by name."""
    found: dict[str, None] = {}
    base: Any
    for base in kind.__mro__[:-1]:
        if "__init__" in vars(base):
            found |= dict.fromkeys(
                p.name for p in inspect.signature(base.__init__).parameters.values()
                if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"
            )
    return list(found)


def _mend_fluid() -> None:
    """Lets `swimmer` run where `jax.numpy.clip` no longer takes `a_min` (brax 0.14.2).

    Only the name `jp` inside `brax.fluid` changes; jax.numpy stays as it is.
    """
    from brax import fluid

    if fluid.jp is not jnp or "a_min" in inspect.signature(jnp.clip).parameters:
        return

    def clip(x, a_min=None, a_max=None, **kwargs):
        return jnp.clip(x, kwargs.get("min", a_min), kwargs.get("max", a_max))

    fluid.jp = _Numpy(clip=clip)


@contextlib.contextmanager
def _no_copies() -> Iterator[None]:
    """Lets Brax read a model without copying each array once more.

    Every shape's copy is a program of its own to compile, half a second for the smallest model.
    """
    from brax.io import mjcf

    def array(x, *args, **kwargs):
        if args or kwargs or not isinstance(x, (jax.Array, np.ndarray)):
            return jnp.array(x, *args, **kwargs)
        if isinstance(x, jax.Array):
            return x
        return jax.device_put(x)

    numpy, mjcf.jp = mjcf.jp, _Numpy(array=array)
    try:
        yield
    finally:
        mjcf.jp = numpy


class _Numpy:
    """`jax.numpy` with some names of our own, for one module of Brax."""

    def __init__(self, **own: Any):
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(jnp, name)
