"""MuJoCo Playground's environments: the DeepMind control suite, locomotion and manipulation."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Mapping
from typing import Any

from jtrust import checks
from jtrust.environments import robot_models
from jtrust.environments.base import Environment, describe, split_options
from jtrust.environments.extras import import_extra, no_mujoco_log, refuse_hidden_warp
from jtrust.environments.mjx_devices import use_local_devices
from jtrust.environments.randomization import Randomized, Randomizer
from jtrust.environments.tracing import said

EXTRA = "playground"
# Implementations of MuJoCo's physics in JAX; warp's runs on CPUs and NVIDIA GPUs.
BACKENDS = ("jax", "warp")
# Room for contacts and constraints, which warp's physics alone sets aside beforehand.
_ROOM = ("naconmax", "naccdmax", "njmax")


def _playground() -> Any:
    refuse_hidden_warp("playground")
    return import_extra("mujoco_playground", EXTRA)


def names() -> list[str]:
    """The names that `make` takes."""
    return sorted(_playground().registry.ALL_ENVS)


def backends(name: str) -> tuple[str, ...]:
    """The implementations of the physics, the default first."""
    return BACKENDS


def remark(name: str) -> str:
    """What must be fetched before `make` can make it, or nothing."""
    return "(needs a download of robot models)" if _models_missing(name) else ""


def make(
    name: str, /, *, backend: str | None = None, domain_randomization: bool = False,
    randomizer: Randomizer | None = None, download: bool = False, **options: Any,
) -> Environment:
    """Makes an environment of MuJoCo Playground.

    Args:
      name: one of `names()`.
      backend: one of `BACKENDS`.
      domain_randomization: give every environment its own physical model, by the suite's own
        randomiser for this task.
      randomizer: the same by a function of the user's: (model, keys [N]) -> (model, in_axes).
      download: fetch the robots' models first, where they are needed and missing.
      **options: `describe`'s, and the environment's configuration; dots lead into its parts, as
        in `{"reward_config.scales.alive": 2.0}`.
    """
    registry = _playground().registry
    checks.one_of("ENV", name, names(), "Playground environment")
    checks.truth_value("domain_randomization", domain_randomization)
    backend = "jax" if backend is None else checks.one_of("backend", backend, BACKENDS)
    checks.truth_value("download", download)
    if download and _models_missing(name):
        robot_models.fetch()
    if missing := _models_missing(name):
        raise checks.BadArgument("ENV", f"playground/{name}", missing)
    common, given = split_options(options)
    config = registry.get_default_config(name)
    if backend == "warp":
        _check_warp()
    _refuse_dead(given, backend)
    _update(config, given)
    for option in set(_ROOM) & set(given):
        checks.whole_number(option, config[option], minimum=0, example=1024)
    _check_time_steps(config, given)
    if "impl" in config:
        config.impl = backend
    elif backend != "jax":
        raise checks.BadArgument("backend", backend, f"playground/{name} has no choice")
    # Some environments also read their own time limit.
    common["episode_length"] = common.get("episode_length", config.get("episode_length", 1000))
    if "episode_length" in config:
        config.episode_length = checks.whole_number(
            "episode_length", common["episode_length"], example=1000
        )
    label = f"playground/{name}"
    use_local_devices()
    try:
        with contextlib.redirect_stdout(io.StringIO()), no_mujoco_log():
            env = registry.load(name, config)
            own = registry.get_domain_randomizer(name)
    except Exception as error:  # an engine and a model's own code raise what they like
        raise checks.BadArgument(
            "ENV", label, f"Playground could not make it with these options: {said(error)}"
        ) from error
    # The backend even where it was not asked for: states of the two are not alike.
    stored = {"backend": backend, **given, **{k: v for k, v in common.items() if k in options}}
    if domain_randomization:
        if own is None and randomizer is None:
            raise checks.BadArgument(
                "domain_randomization", True,
                f"{label} has no randomiser of its own; give one as randomizer=",
            )
        stored["domain_randomization"] = True
    if randomizer is not None:
        label += "+randomizer"
    randomizer = randomizer or (own if domain_randomization else None)
    if randomizer is not None:
        env = Randomized(env, "_mjx_model", randomizer)
    return describe(env, label, options=stored, **common)


def _models_missing(name: str) -> str:
    """How to get the robot models that an environment needs, where they are not here."""
    playground = _playground()
    if name in playground.dm_control_suite.ALL_ENVS:
        return ""
    if robot_models.here():
        return ""
    path, commit = robot_models.place()
    return (
        "needs robot models that are not on this machine; have them fetched by --download "
        f"(download=True), or by `git clone {robot_models.ADDRESS} {path} && "
        f"git -C {path} checkout {commit}`"
    )


def _check_warp() -> None:
    """Raises `BadArgument` where warp's physics is not installed."""
    with contextlib.redirect_stdout(io.StringIO()):
        from mujoco.mjx import warp as mjx_warp
    if not mjx_warp.WARP_INSTALLED or mjx_warp.mujoco_warp is None:
        raise checks.BadArgument(
            "backend", "warp", "the package warp cannot be imported; pip install warp-lang, or "
            "use jax"
        )


def _refuse_dead(given: Mapping[str, Any], backend: str) -> None:
    """Raises `BadArgument` for parts of a configuration that would be of no effect."""
    for name in _ROOM:
        if name in given and backend != "warp":
            raise checks.BadArgument(
                name, given[name], "is read by Warp's physics alone; use backend warp with it"
            )
    for name, instead in (
        ("impl", "is chosen by backend"),
        ("action_repeat", "is read by Playground's own trainer alone; use "
         "jtrust.wrappers.action_repeat"),
    ):
        if name in given:
            raise checks.BadArgument(name, given[name], instead)


def _update(config: Any, overrides: Mapping[str, Any]) -> None:
    """Puts overrides into a configuration; names may be dotted."""
    known = _flat(config)
    for name, value in overrides.items():
        checks.one_of(name, name, known, "option")
        kind = type(known[name])
        like = f"must be of the same type as its default, {known[name]!r} ({kind.__name__})"
        if isinstance(value, bool) and kind in (int, float):  # a number to ml_collections
            raise checks.BadArgument(name, value, like)
        try:
            config.update_from_flattened_dict({name: value})
        except (TypeError, ValueError) as error:
            raise checks.BadArgument(name, value, like) from error


def _check_time_steps(config: Any, given: Mapping[str, Any]) -> None:
    """Raises `BadArgument` where a control step would hold no step of the physics."""
    control, physics = config.get("ctrl_dt"), config.get("sim_dt")
    for name in ("ctrl_dt", "sim_dt"):
        if name in given and not (math.isfinite(config[name]) and 0 < physics <= control):
            raise checks.BadArgument(
                name, given[name], "must be finite seconds above 0, sim_dt at most ctrl_dt, which "
                f"are {physics:g} and {control:g}"
            )


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """{dotted name: value}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
