"""gymnax's environments: classic control, MinAtar, bsuite and others."""

from __future__ import annotations

import dataclasses
import inspect
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.environments.base import (
    ActionSpace,
    Box,
    Discrete,
    Environment,
    describe,
    split_options,
)
from jtrust.environments.extras import import_extra
from jtrust.environments.tracing import said

EXTRA = "gymnax"
_MNIST = "/tmp/mnist"  # where gymnax keeps it


def _gymnax() -> Any:
    return import_extra("gymnax", EXTRA)


def names() -> list[str]:
    """The names that `make` takes."""
    return sorted(_gymnax().registered_envs)


def backends(name: str) -> tuple[str, ...]:
    """None: these environments have no choice of physics."""
    return ()


def remark(name: str) -> str:
    """What must be fetched before `make` can make it, or nothing."""
    return "(needs a download of MNIST)" if _data_missing(name) else ""


def make(
    name: str, /, *, backend: str | None = None, domain_randomization: bool = False,
    **options: Any,
) -> Environment:
    """Makes a gymnax environment.

    Args:
      name: one of `names()`.
      backend: must be None.
      domain_randomization: must be False.
      **options: `describe`'s, the environment's parameters, such as `max_torque`, and what its
        constructor takes. `episode_length` sets the environment's own time limit.
    """
    gymnax = _gymnax()
    checks.one_of("ENV", name, names(), "gymnax environment")
    if backend is not None:
        raise checks.BadArgument("backend", backend, f"gymnax/{name} has none; leave it out")
    if domain_randomization:
        raise checks.BadArgument(
            "domain_randomization", domain_randomization, f"gymnax/{name} has none; leave it out"
        )
    if _data_missing(name):
        raise checks.BadArgument(
            "ENV", f"gymnax/{name}", f"needs MNIST's four .gz files in {_MNIST}"
        )
    common, given = split_options(options)
    from gymnax import registration

    of_class = inspect.signature(registration._registry[name]).parameters
    arguments = {
        k: _like(k, of_class[k].default, v) for k, v in given.items() if k in of_class
    }
    try:
        env, params = gymnax.make(name, **arguments)
        Adapter(env, params)  # looks at the spaces, which some options leave impossible
    except checks.BadArgument:
        raise
    except Exception as error:  # environments raise what they like
        raise checks.BadArgument("options", arguments, f"gymnax/{name}: {said(error)}") from error
    known = [f.name for f in dataclasses.fields(params) if f.name != "max_steps_in_episode"]
    changed = {}
    for key, value in given.items():
        if key in arguments:
            continue
        checks.one_of(key, key, [*known, *of_class, "episode_length"], "option")
        changed[key] = _like(key, getattr(params, key), value)
    length = common.setdefault("episode_length", int(params.max_steps_in_episode))
    length = checks.whole_number("episode_length", length, example=500)
    changed["max_steps_in_episode"] = type(params.max_steps_in_episode)(length)
    params = params.replace(**changed)
    stored = {**given, **{k: v for k, v in common.items() if k in options}}
    return describe(Adapter(env, params), f"gymnax/{name}", options=stored, **common)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """One gymnax environment.

    Attributes:
      inner: gymnax's own state.
      key: of the steps to come.
      obs: [O].
      reward: [].
      done: a failure or a success, bool [].
      info: {"truncation": the time limit, bool []}.
    """

    inner: Any
    key: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict[str, jax.Array]


class Adapter:
    """A gymnax environment under fixed parameters, without its automatic restarts.

    Attributes:
      action: the space of actions.
    """

    def __init__(self, env: Any, params: Any):
        self._env, self._params = env, params
        self._space = env.action_space(params)
        self.action = _action_space(self._space)
        observed = env.observation_space(params)
        # A number that names a place is no quantity: one input for each place.
        self._categories = getattr(observed, "n", None)

    def reset(self, key: jax.Array) -> State:
        start_key, steps_key = jax.random.split(key)
        obs, inner = self._env.reset_env(start_key, self._params)
        no = jnp.zeros((), bool)
        return self._state(inner, steps_key, obs, 0.0, no, no)

    def step(self, state: State, action: jax.Array) -> State:
        key, step_key = jax.random.split(state.key)
        if isinstance(self.action, Box):
            action = action.reshape(self._space.shape)
        obs, inner, reward, done, _ = self._env.step_env(
            step_key, state.inner, action, self._params
        )
        limit = self._env.is_truncated(inner, self._params)
        return self._state(inner, key, obs, reward, done, limit & ~jnp.asarray(done, bool))

    def _state(self, inner, key, obs, reward, done, truncation) -> State:
        return State(
            jax.tree.map(jnp.asarray, inner), key, self._vector(obs),
            jnp.asarray(reward, jnp.float32).reshape(()), jnp.asarray(done, bool).reshape(()),
            {"truncation": jnp.asarray(truncation, bool).reshape(())},
        )

    def _vector(self, obs: Any) -> jax.Array:
        if self._categories is not None:
            return jax.nn.one_hot(jnp.asarray(obs).reshape(()), self._categories)
        parts = [jnp.ravel(x).astype(jnp.float32) for x in jax.tree.leaves(obs)]
        return jnp.concatenate(parts)


def _action_space(space: Any) -> ActionSpace:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    bounds = [np.unique(np.asarray(x, np.float32)) for x in (space.low, space.high)]
    if any(len(x) != 1 or not np.isfinite(x[0]) for x in bounds):
        raise checks.BadArgument("ENV", space, "has no finite range that all actions share")
    return Box(int(np.prod(space.shape)), float(bounds[0][0]), float(bounds[1][0]))


def _like(name: str, default: Any, value: Any) -> Any:
    """A value of the default's type and shape, since gymnax's own code tells 100 from 100.0.

    What has no default, or one that is neither a number nor an array of them, passes as it is.
    """
    if isinstance(default, bool):
        if not (isinstance(value, (bool, int, float, np.generic)) and value in (0, 1)):
            raise checks.BadArgument(name, value, "must be true or false")
        return bool(value)
    if isinstance(default, (jax.Array, np.ndarray)) and default.ndim:
        like = f"must be {default.shape} finite numbers, such as {default.tolist()}"
        try:
            array = np.asarray(value, np.float64)
        except (TypeError, ValueError) as error:
            raise checks.BadArgument(name, value, like) from error
        if array.shape != default.shape or not np.all(np.isfinite(array)):
            raise checks.BadArgument(name, value, like)
        return jnp.asarray(array, default.dtype)
    if not isinstance(default, (int, float, jax.Array, np.ndarray, np.generic)):
        return value
    whole = isinstance(default, int)
    if not checks.is_number(value) or not math.isfinite(value) or (whole and value != int(value)):
        kind = "a whole number" if whole else "a finite number"
        raise checks.BadArgument(name, value, f"must be {kind}, such as {default}")
    return type(default)(value) if isinstance(default, (int, float)) else value


def _data_missing(name: str) -> bool:
    # Not the folder alone: gymnax makes it before it tries to download into it.
    return name.startswith("MNIST") and len(list(Path(_MNIST).glob("*-ubyte.gz"))) < 4
