"""Checkpoints of earlier versions, as this one has them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

# What earlier states did not hold: their rewards count as having told policies apart.
_ADDED = {"rewards_seen.least": 0.0, "rewards_seen.most": 1.0, "rewards_seen.ended": 1.0}


def upgraded(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a whole training state, by name, with what was added since it was written."""
    new = {name: np.float32(value) for name, value in _ADDED.items()} | dict(arrays)
    for name in ("last_episodes.return", "last_episodes.length"):
        if name in new:  # NaN once stood for "no episode has ended yet"
            new[name] = np.nan_to_num(new[name])
    return new
