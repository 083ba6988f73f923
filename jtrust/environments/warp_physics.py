"""MuJoCo Warp's physics: its states made such that JAX can batch, select and keep them.

Warp steps all worlds in one call. Some arrays of its data (the contacts) belong to all of them
together and cannot have an axis of environments; the rest of `mjx.Data` is mostly working memory,
which a step writes before it reads it. A state here holds neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks

# What it means, and what to do.
MORE_ROOM = "contacts or constraints were lost for want of room; give more naconmax or njmax"
# Under this name a state's `info` tells whether the step before it lost contacts or constraints.
OVERFLOW = "physics_overflow"

# Of `mjx.Data`, all that a step depends on: MuJoCo's own state (mjSTATE_INTEGRATION).
_STATE = frozenset((
    "time", "qpos", "qvel", "act", "history", "qacc_warmstart", "ctrl", "qfrc_applied",
    "xfrc_applied", "eq_active", "mocap_pos", "mocap_quat", "userdata", "plugin_state",
))
# What each step counts or fills from nothing, whatever was there; other arrays that belong to all
# worlds come from `mjx.make_data`.
_FILLED_BY_STEP = ("contact__", "nacon", "ncollision")
# Bits of Warp's `overflow` that mean lost contacts or constraints; the others tell of a solver
# that came to its last iteration, as solvers are made to.
_LOST = ("NEFC", "NJMAX_NNZ", "BROADPHASE", "NARROWPHASE", "CCD", "NVMAX")
# Functions of other packages are replaced while an environment is traced: one at a time.
_LOCK = threading.RLock()


def overflow(state: Any) -> jax.Array:
    """Whether the step to a state lost contacts or constraints for want of room, bool like `done`.

    False where the physics has no such limits.
    """
    info = getattr(state, "info", None)
    if isinstance(info, Mapping) and OVERFLOW in info:
        return info[OVERFLOW]
    return jnp.zeros(jnp.shape(state.done), bool)


def check_devices(environment: Any, devices: Iterable[jax.Device]) -> None:
    """Raises `BadArgument` where an environment's physics does not run on one of the devices."""
    for device in devices:
        if environment.platforms is not None and device.platform not in environment.platforms:
            raise checks.BadArgument(
                "env", environment.name,
                f"its physics is Warp's, which does not run on a {device.platform}; use backend "
                "jax",
            )


def fixed_for_all(model: Any, field: str) -> bool:
    """Whether Warp's worlds cannot differ in a field of an `mjx.Model`, such as "opt.timestep".

    Either they share it, or Warp does not read it.
    """
    types = _warp_types()
    if types is None or not isinstance(getattr(model, "_impl", None), types.ModelWarp):
        return False
    name = field.replace("_impl.", "").replace(".", "__")
    return not types._BATCH_DIM["Model"].get(name, False)


def _warp_types() -> Any:
    """MJX's module about Warp's data, if a program has imported MJX, and Warp is there."""
    types = sys.modules.get("mujoco.mjx.warp.types")
    return types if types is not None and sys.modules["mujoco.mjx.warp"].WARP_INSTALLED else None


def _is_warp_data(x: Any) -> bool:
    return isinstance(x, _warp_types().DataWarp)


def _arrays(data: Any) -> list[str]:
    """Names of a dataclass's fields that hold arrays."""
    return [f.name for f in dataclasses.fields(data) if hasattr(getattr(data, f.name), "dtype")]


class Physics:
    """One environment's `reset` and `step`, with states that hold one world's state and no more.

    `Data._impl` becomes a dictionary, and a dictionary `info` tells under `OVERFLOW`, bool [],
    whether contacts or constraints were lost on the way from the state before. Where the physics
    is not Warp's, all stays as it is. What it must know it learns while it is traced, `reset`
    first.
    """

    def __init__(self):
        self._initial: list[Any] = []  # what `mjx.make_data` gave, arrays on the host
        self._structure: Any = None  # of a state, Warp's data being leaves of it
        self._like: list[Any] = []  # for each of those leaves Warp's data, as shapes, or None
        self._inside = False

    @property
    def platforms(self) -> tuple[str, ...] | None:
        """Where the physics runs, as in `Environment.platforms`."""
        return None if self._structure is None else ("cpu", "gpu")

    def of(self, env: Any) -> tuple[Callable, Callable]:
        """An environment's own `reset` and `step`, from states to keep to states to keep."""
        if _warp_types() is None:
            return env.reset, env.step

        def reset(*args):
            with self._traced():
                return self._plain(env.reset(*args))

        def step(state, *args):
            with self._traced():
                return self._plain(env.step(self._whole(state), *args))

        return reset, step

    def _plain(self, state: Any) -> Any:
        """A state as MJX has it -> one to keep."""
        parts = jax.tree.leaves(state, is_leaf=_is_warp_data)
        data = [x for x in parts if _is_warp_data(x)]
        if not data:
            return state
        if self._structure is None:
            self._structure = jax.tree.structure(state, is_leaf=_is_warp_data)
            self._like = [_shapes(x) if _is_warp_data(x) else None for x in parts]
        info = getattr(state, "info", None)
        if isinstance(info, Mapping) and dataclasses.is_dataclass(state):
            lost = functools.reduce(jnp.bitwise_or, [x.overflow for x in data])
            bits = sum(_warp_overflows()[name] for name in _LOST)
            state = dataclasses.replace(
                cast(Any, state), info={**info, OVERFLOW: (lost & bits) != 0}
            )
        return jax.tree.map(
            lambda x: _own(x) if _is_warp_data(x) else x, state, is_leaf=_is_warp_data
        )

    def _whole(self, state: Any) -> Any:
        """A state to keep -> one as MJX has it."""
        if self._structure is None:
            return state
        info = getattr(state, "info", None)
        if isinstance(info, Mapping) and OVERFLOW in info:
            rest = {k: v for k, v in info.items() if k != OVERFLOW}
            state = dataclasses.replace(state, info=rest)
        parts = self._structure.flatten_up_to(state)
        return self._structure.unflatten([
            own if like is None else self._with_shared(own, like)
            for own, like in zip(parts, self._like, strict=True)
        ])

    def _with_shared(self, own: dict[str, jax.Array], like: Any) -> Any:
        """Warp's data from one world's own and shapes of the whole."""
        initial = self._of_shapes(like)
        filled = {}
        for name in _arrays(like):
            x = getattr(like, name)
            if name in own and name != "overflow":
                filled[name] = own[name]
            elif initial is not None:
                filled[name] = _constant(getattr(initial._impl, name))
            elif not x.size or name == "overflow" or name.startswith(_FILLED_BY_STEP):
                filled[name] = jnp.zeros(x.shape, x.dtype)
            else:
                raise checks.BadArgument(
                    "env.reset", name, "is Warp's for all environments together; reset must call "
                    "mjx.make_data itself",
                )
        return dataclasses.replace(like, **filled)

    def _of_shapes(self, data: Any) -> Any:
        """What `mjx.make_data` gave for data of these shapes, or None."""
        for initial in self._initial:
            if all(
                np.shape(getattr(initial._impl, name)) == getattr(data, name).shape
                for name in _arrays(data)
            ):
                return initial
        return None

    @contextlib.contextmanager
    def _traced(self) -> Iterator[None]:
        """Within it MJX's physics depends on nothing but MuJoCo's state, and is silent."""
        from mujoco import mjx

        changes = [(mjx, "make_data", self._make_data)]
        changes += [(mjx, name, self._from_state) for name in ("forward", "step")]
        if playground := sys.modules.get("mujoco_playground._src.mjx_env"):
            # All steps of the physics in one of the environment's: memory is filled once.
            changes.append((playground, "step", self._from_state))
        with _LOCK, contextlib.ExitStack() as stack:
            for module, name, change in changes:
                original = getattr(module, name)
                stack.callback(setattr, module, name, original)
                setattr(module, name, functools.wraps(original)(
                    functools.partial(change, original)
                ))
            yield

    def _make_data(self, original: Callable, *args: Any, **kwargs: Any) -> Any:
        data = original(*args, **kwargs)
        if not _is_warp_data(data._impl):
            return data
        _silence(sys.modules["warp"])
        with jax.ensure_compile_time_eval():  # as numbers, where it was a part of a program
            data = original(*args, **kwargs)
        initial = jax.tree.map(np.asarray, data)
        if self._of_shapes(data._impl) is None:
            self._initial.append(initial)
        return jax.tree.map(_constant, initial)

    def _from_state(self, original: Callable, m: Any, d: Any, *args: Any, **kwargs: Any) -> Any:
        if self._inside or not _is_warp_data(d._impl):
            return original(m, d, *args, **kwargs)
        self._inside = True
        try:
            # A kernel prints each overflow of each world, on standard output; it is counted.
            m = m.tree_replace({"opt._impl.warn_overflow": 0})
            return original(m, self._forgetful(m, d), *args, **kwargs)
        finally:
            self._inside = False

    def _forgetful(self, m: Any, d: Any) -> Any:
        """`d` with all but MuJoCo's state as `mjx.make_data` gave it."""
        initial = self._of_shapes(d._impl)
        # Of bodies that sleep a step takes positions and forces from the step before.
        if initial is None or int(m.opt.enableflags) & _sleep_flag():
            return d
        private = {
            name: _constant(getattr(initial._impl, name))
            for name in _arrays(d._impl) if name != "overflow"
        }
        public = {
            name: _constant(getattr(initial, name)) for name in _arrays(d) if name not in _STATE
        }
        return d.replace(_impl=d._impl.replace(**private), **public)


def _shapes(data: Any) -> Any:
    return dataclasses.replace(data, **{
        name: jax.ShapeDtypeStruct(getattr(data, name).shape, getattr(data, name).dtype)
        for name in _arrays(data)
    })


def _own(data: Any) -> dict[str, Any]:
    """What one world has for itself of Warp's data, by name; without what holds nothing."""
    shared = _warp_types().DATA_NON_VMAP
    return {
        name: getattr(data, name) for name in _arrays(data)
        if name not in shared and getattr(data, name).size
    }


def _constant(x: np.ndarray) -> jax.Array:
    """An array of the program's; one number throughout is kept as one, however large `x` is."""
    if x.size > 1 and (x == x.flat[0]).all():
        return jnp.full(x.shape, x.flat[0], x.dtype)
    return jnp.asarray(x)


def _silence(warp: Any) -> None:
    """Keeps Warp from telling, on standard output, of each kernel that it compiles or loads."""
    if warp.config.log_level == warp.LOG_INFO:  # and nobody asked for more
        warp.config.log_level = warp.LOG_WARNING


@functools.cache
def _warp_overflows() -> dict[str, int]:
    from mujoco.mjx.third_party.mujoco_warp._src.types import OverflowType

    return {x.name: int(x) for x in OverflowType}


def _sleep_flag() -> int:
    import mujoco

    return int(mujoco.mjtEnableBit.mjENBL_SLEEP)
