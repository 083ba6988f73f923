"""The contract beside an exported policy: what goes in, what comes out, and how far it is true."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.deploy.acting import Acting
from jtrust.deploy.parity import Parity
from jtrust.environments.base import Discrete
from jtrust.runs.config import RunConfig
from jtrust.runs.spaces import action_to_json
from jtrust.version import __version__

_PACKAGES = (
    "jax", "jaxlib", "flax", "brax", "mujoco", "mujoco-mjx", "playground", "gymnax", "onnx",
    "onnxruntime",
)


def describe(acting: Acting, config: RunConfig, step: int, format: str) -> dict[str, Any]:
    """All of the contract that is known before anything is written.

    Args:
      acting: what is exported.
      config: of the run.
      step: of the checkpoint, in environment steps.
      format: "onnx", "stablehlo" or "brax".
    """
    policy = acting.policy
    observation: dict[str, Any] = {"size": policy.statistics.mean.shape[0], "key": policy.key}
    return {
        "jtrust": __version__,
        "format": format,
        "policy": "sample" if acting.stochastic else "mode",
        "distribution": acting.distribution.__name__,
        "inputs": [x.to_json() for x in acting.inputs],
        "outputs": [x.to_json() for x in acting.outputs],
        "observation": observation,
        "action": {**action_to_json(policy.action), "range": _range(policy.action)},
        "units": {"observations": None, "actions": None},
        "environment": {
            "name": config.env, "options": config.env_options,
            "episode_length": config.episode_length,
        },
        "run": {
            "algorithm": config.algorithm, "step": step, "seed": config.seed,
            "network": config.network, "own_networks": config.own_networks,
        },
        "versions": installed(),
    }


def _range(action: Any) -> list:
    return [0, action.n - 1] if isinstance(action, Discrete) else [action.low, action.high]


def finished(contract: dict[str, Any], file: Path, name: str, parity: Parity) -> dict[str, Any]:
    """The contract of a file that is written, compared, and to be called `name`."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    return {"file": name, "sha256": found, **contract, "parity": parity.to_json()}


def installed() -> dict[str, str]:
    """Versions of what is installed here and bears on an exported policy."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def units_of(env: Any, acting: Acting) -> dict[str, list[str] | None]:
    """What an environment says of its units, in `observation_units` and `action_units`.

    Each is a text per number, such as "rad/s", or a dictionary of them by observation.

    Raises:
      BadArgument: another number of texts than there are numbers.
    """
    return {
        "observations": _units(env, "observation_units", acting.inputs[0].shape[0], acting),
        "actions": _units(env, "action_units", getattr(acting.policy.action, "size", 1), acting),
    }


def _units(env: Any, name: str, size: int, acting: Acting) -> list[str] | None:
    found = getattr(env, name, None)
    if isinstance(found, dict):
        found = found.get(acting.policy.key)
    if found is None:
        return None
    if isinstance(found, str) or len(found) != size or not all(isinstance(x, str) for x in found):
        raise checks.BadArgument(f"env.{name}", found, f"must be {size} texts, one per number")
    return list(found)
