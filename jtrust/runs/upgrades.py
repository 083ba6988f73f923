"""Checkpoints of earlier versions, as this one has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

# What earlier states did not hold: their rewards count as having told policies apart.
_ADDED = {"rewards_seen.least": 0.0, "rewards_seen.most": 1.0, "rewards_seen.ended": 1.0}

# Fields of the state by their earlier names.
_RENAMED = {
    "observation_moments": "observation_statistics", "target_moments": "target_statistics",
}


def renamed(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a checkpoint, or their shapes, by the names that their places have now."""
    new = {}
    for name, value in arrays.items():
        field, dot, rest = name.partition(".")
        new[_RENAMED.get(field, field) + dot + rest] = value
    return new


def with_added(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a whole training state, or their shapes, with those that came later."""
    return {name: np.float32(value) for name, value in _ADDED.items()} | dict(arrays)


def upgraded(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a whole training state, by name, as this version has them."""
    new = with_added(arrays)
    for name in ("last_episodes.return", "last_episodes.length"):
        if name in new:  # NaN once stood for "no episode has ended yet"
            new[name] = np.nan_to_num(new[name])
    return new
