"""Where metrics go: a line of JSON per iteration, and optional services beside it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jtrust import checks


class MetricsWriter(Protocol):
    """Takes one iteration's metrics at a time."""

    def write(self, row: Mapping[str, float | int | None]) -> None: ...

    def close(self) -> None: ...


def to_row(metrics: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Device scalars as JSON's numbers; what is not finite, or does not exist yet, becomes None."""

    def plain(value):
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    row = {k: plain(v) for k, v in metrics.items()}
    if row.get("episode/length") == 0:  # until one has ended
        row["episode/return"] = row["episode/length"] = None
    return row


class JsonLines:
    """Appends to `metrics.jsonl`, each line whole and at once."""

    def __init__(self, path: Path):
        self._path = path
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115

    def write(self, row: Mapping[str, float | int | None]) -> None:
        line = json.dumps(row, allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OSError(f"{self._path} could not be written: {error.strerror}") from error
        if written < len(line):
            raise OSError(f"{self._path} could not be written: no room left")

    def close(self) -> None:
        self._file.close()


class TensorBoard:
    """Event files beside the metrics, for TensorBoard."""

    def __init__(self, path: Path):
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise checks.BadArgument(
                "tensorboard", True, "needs `pip install jtrust[tensorboard]`"
            ) from error
        self._writer = SummaryWriter(str(path))

    def write(self, row: Mapping[str, float | int | None]) -> None:
        for key, value in row.items():
            if value is not None:
                self._writer.add_scalar(key, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A Weights & Biases run."""

    def __init__(self, path: Path, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise checks.BadArgument("wandb", True, "needs `pip install jtrust[wandb]`") from error
        self._run = wandb.init(project="jtrust", dir=str(path), config=dict(config))

    def write(self, row: Mapping[str, float | int | None]) -> None:
        self._run.log({k: v for k, v in row.items() if v is not None}, step=row["step"])

    def close(self) -> None:
        self._run.finish()
