"""What there is to draw of an environment: its MuJoCo model, and where a state says everything is.

An environment of a user's own is drawn if the object has `mj_model`, a `mujoco.MjModel`, and its
states tell `qpos`, [nq]: under `data` (an `mjx.Data`), under `pipeline_state` (as Brax's), or
themselves.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jtrust import checks
from jtrust.environments import Environment

_WRAPPERS = 32  # one inside another; an object whose `inner` is itself has no end


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes:
      model: the `mujoco.MjModel`.
      dt: seconds that a step of the environment takes.
    """

    model: Any
    dt: float


def find_scene(environment: Environment) -> Scene | None:
    """The scene of an environment; None where it has no MuJoCo model.

    Raises:
      BadArgument: there is a model, and states tell nothing that would be a pose of it.
    """
    model = _model(environment.unwrapped)
    if model is None:
        return None
    key = jax.eval_shape(lambda: jax.random.key(0))
    variation: tuple = ()
    vary = environment.vary
    if vary is not None:
        keys = jax.ShapeDtypeStruct((1,), key.dtype)
        variation = (
            jax.eval_shape(lambda keys: jax.tree.map(lambda x: x[0], vary(keys)), keys),
        )
    found = pose(jax.eval_shape(environment.reset, key, *variation))
    shape = found["qpos"].shape if "qpos" in found else None
    if shape != (model.nq,):
        raise checks.BadArgument(
            "env", environment.name,
            f"has a MuJoCo model of {model.nq} coordinates, and its states "
            + (f"have {shape[0] if len(shape) == 1 else list(shape)}" if shape is not None
               else "do not tell them")
            + f"; a state needs data.qpos, pipeline_state.q or qpos, [{model.nq}]",
        )
    return Scene(model, environment.dt or float(model.opt.timestep))


def pose(state: Any) -> dict[str, jax.Array]:
    """Where everything is in a state, by fields of `mujoco.MjData`; leading axes as they are.

    "qpos", [..., nq], and where there are such bodies "mocap_pos", [..., nmocap, 3], and
    "mocap_quat", [..., nmocap, 4]; nothing at all where a state tells nothing.
    """
    for _ in range(_WRAPPERS):
        for field in ("data", "pipeline_state"):
            if (inner := getattr(state, field, None)) is not None:
                return _coordinates(inner)
        if getattr(state, "qpos", None) is not None or not hasattr(state, "inner"):
            break
        state = state.inner
    return _coordinates(state)


def _coordinates(physics: Any) -> dict[str, jax.Array]:
    """Of the state of Brax's own physics as of MuJoCo's."""
    qpos = getattr(physics, "qpos", None)
    if qpos is None:
        qpos = getattr(physics, "q", None)
    found = {} if qpos is None else {"qpos": qpos}
    for field in ("mocap_pos", "mocap_quat"):
        value = getattr(physics, field, None)
        if value is not None and value.size:
            found[field] = value
    return found


def _model(env: Any) -> Any:
    """The `mujoco.MjModel` of an object; None where it has none."""
    try:
        env = getattr(env, "unwrapped", env)
        model = getattr(env, "mj_model", None)
        if model is None:
            model = getattr(getattr(env, "sys", None), "mj_model", None)
    except Exception:  # properties of a base class that has no model raise what they like
        return None
    if model is None:
        return None
    import mujoco

    if not isinstance(model, mujoco.MjModel):
        raise checks.BadArgument("env.mj_model", type(model).__name__, "must be a mujoco.MjModel")
    return model
