"""What a run comes to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jtrust.policy import Policy
from jtrust.training import Trainer, TrainState


@dataclasses.dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
      policy: acts; see `jtrust.policy.Policy`.
      state: the whole training state, on the device.
      metrics: {key: array over the iterations of this call}; NaN where there was no value.
      trainer: what was trained.
      run_dir: where the run is kept, or None.
      stopped_by: number of the signal that ended it early, or None.
    """

    policy: Policy
    state: TrainState
    metrics: dict[str, np.ndarray]
    trainer: Trainer
    run_dir: str | None
    stopped_by: int | None


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics as arrays by name; NaN where there was no value."""
    keys = rows[0] if rows else ()
    nan = float("nan")
    return {k: np.asarray([nan if row[k] is None else row[k] for row in rows]) for k in keys}
