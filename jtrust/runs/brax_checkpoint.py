"""Checkpoints of brax's PPO, as something that a run may start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks

CONFIG = "ppo_network_config.json"


def find(path: Path) -> Path | None:
    """The newest checkpoint of brax's PPO at `path` or in it; None where there is none."""
    if (path / CONFIG).is_file():
        return path
    try:
        inner = [p for p in path.iterdir() if p.name.isdecimal() and (p / CONFIG).is_file()]
    except OSError:
        return None
    return max(inner, key=lambda p: int(p.name), default=None)


def read(path: Path) -> tuple[int, dict[str, np.ndarray], dict[str, Any]]:
    """(step, arrays by the names of jtrust's places, what its network was made with).

    The means of the policy and the normaliser: brax makes its deviations of outputs of the same
    network by a softplus, which jtrust's networks do not have, and its values are on another scale.

    Raises:
      BadArgument: it cannot be read, or its policy is none that jtrust's networks can be.
    """
    try:
        told = json.loads((path / CONFIG).read_text())
        arguments = dict(told["network_factory_kwargs"])
        normalizer, policy = _restored(path)
        arrays = _layers(policy["params"]) | _statistics(normalizer, told)
        plain = isinstance(told.get("observation_size"), int)
    except Exception as error:  # whatever a foreign checkpoint lacks
        raise _no(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if arguments.get("distribution_type", "tanh_normal") != "tanh_normal" or not plain:
        raise _no(path, "is of another network than layers on one vector, under brax's tanh_normal")
    activation = _activation(str(arguments.get("activation") or "swish"))
    step = int(path.name) if path.name.isdecimal() else 0
    return step, arrays, {"activation": activation, "squash": True}


def _layers(layers: dict[str, Any]) -> dict[str, np.ndarray]:
    """The policy's, by the names of jtrust's places."""
    weights = [layers[f"hidden_{i}"] for i in range(len(layers))]
    names = ["input", *(f"hidden_{i}" for i in range(1, len(weights) - 1)), "output"]
    found = {}
    for name, layer in zip(names, weights, strict=True):
        for part in ("kernel", "bias"):
            value = np.asarray(layer[part], np.float32)
            if name == "output":  # means, then what deviations are made of
                value = value[..., :value.shape[-1] // 2]
            found[f"policy.params.mlp.{name}.{part}"] = value
    return found


def _statistics(normalizer: dict[str, Any], told: dict[str, Any]) -> dict[str, np.ndarray]:
    """What observations are normalised by; nothing, where they are not."""
    mean, std = (np.asarray(normalizer[name], np.float32) for name in ("mean", "std"))
    count = _number(normalizer["count"])
    if not told.get("normalize_observations"):
        mean, std, count = np.zeros_like(mean), np.ones_like(std), 0.0
    return {
        "observation_statistics.count": np.asarray(count, np.float32),
        "observation_statistics.mean": mean, "observation_statistics.variance": np.square(std),
    }


def _restored(path: Path) -> tuple[Any, Any]:
    """(normaliser, policy's parameters) as dictionaries."""
    import orbax.checkpoint as ocp

    params = ocp.PyTreeCheckpointer().restore(path.absolute())
    normalizer, policy, *_ = params if isinstance(params, (list, tuple)) else (
        params[key] for key in sorted(params)
    )
    return normalizer, policy


def _number(count: Any) -> float:
    """brax counts with two words of 32 bits, or with one number."""
    if isinstance(count, dict):
        return float(count["hi"]) * 2.0**32 + float(count["lo"])
    return float(np.asarray(count))


def _activation(name: str) -> str:
    return {"silu": "swish"}.get(name, name)


def _no(path: Path, why: str) -> checks.BadArgument:
    return checks.BadArgument("initialize_from", str(path), why)
