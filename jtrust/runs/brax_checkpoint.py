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
    if not path.is_dir():
        return None
    inner = [p for p in path.iterdir() if p.name.isdecimal() and (p / CONFIG).is_file()]
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
        arguments = told["network_factory_kwargs"]
        normalizer, policy = _restored(path)
        layers = policy["params"]
        names = [f"hidden_{i}" for i in range(len(layers))]
        weights = [layers[name] for name in names]
    except Exception as error:  # whatever a foreign checkpoint lacks
        raise _no(path, f"cannot be read ({type(error).__name__}: {error})") from error
    if arguments.get("distribution_type", "tanh_normal") != "tanh_normal" or not isinstance(
        told.get("observation_size"), int
    ):
        raise _no(path, "is of another network than layers on one vector, under brax's tanh_normal")
    ours = ["input", *(f"hidden_{i}" for i in range(1, len(weights) - 1)), "output"]
    found = {}
    for name, layer in zip(ours, weights, strict=True):
        for part in ("kernel", "bias"):
            value = np.asarray(layer[part], np.float32)
            if name == "output":  # means, then what deviations are made of
                value = value[..., :value.shape[-1] // 2]
            found[f"policy.params.mlp.{name}.{part}"] = value
    size = weights[0]["kernel"].shape[0]
    count = float(_number(normalizer["count"])) if told.get("normalize_observations") else 0.0
    mean, std = np.zeros(size), np.ones(size)
    if count:
        mean, std = normalizer["mean"], normalizer["std"]
    found |= {
        "observation_statistics.count": np.asarray(count, np.float32),
        "observation_statistics.mean": np.asarray(mean, np.float32),
        "observation_statistics.variance": np.square(np.asarray(std, np.float32)),
    }
    activation = str(arguments.get("activation") or "swish")
    return int(path.name), found, {"activation": _activation(activation), "squash": True}


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
