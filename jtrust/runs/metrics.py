"""Where metrics go: a line of JSON per iteration, and optional services beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from jtrust import checks
from jtrust.paths import open_plain
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory


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
        self._file = open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

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


def check_services(tensorboard: bool, wandb: bool) -> None:
    """Raises `BadArgument` where a service's package is not installed; nothing is imported."""
    for wanted, name, module in (
        (tensorboard, "tensorboard", "tensorboardX"), (wandb, "wandb", "wandb"),
    ):
        checks.truth_value(name, wanted)
        if wanted and module not in sys.modules and importlib.util.find_spec(module) is None:
            raise checks.BadArgument(name, True, f"needs `pip install 'jtrust[{name}]'`")


class TensorBoard:
    """Event files beside the metrics, for TensorBoard.

    Args:
      path: where they go.
      done: the step from which a run goes on; what earlier files have behind it is hidden.
    """

    def __init__(self, path: Path, done: int = 0):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def write(self, row: Mapping[str, float | int | None]) -> None:
        for key, value in row.items():
            if value is not None:
                self._writer.add_scalar(key, value, row["step"])

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """A Weights & Biases run; the same one again under the same `name`."""

    def __init__(self, path: Path, config: Mapping[str, Any], name: str):
        import wandb

        self._run = wandb.init(
            project="jtrust", dir=str(path), config=dict(config), id=name, resume="allow"
        )

    def write(self, row: Mapping[str, float | int | None]) -> None:
        self._run.log({k: v for k, v in row.items() if v is not None}, step=row["step"])

    def close(self) -> None:
        self._run.finish()


def open_writers(
    stack: contextlib.ExitStack, directory: RunDirectory, config: RunConfig, done: int = 0
) -> list[MetricsWriter]:
    """What a run's metrics go to from step `done` on; each is closed with the stack."""
    path = directory.path
    writers: list[MetricsWriter] = []
    for wanted, opened in (
        (True, lambda: JsonLines(directory.metrics_path)),
        (config.tensorboard, lambda: TensorBoard(path, done)),
        (config.wandb, lambda: WeightsAndBiases(
            path, dataclasses.asdict(config), config.wandb_id
        )),
    ):
        if wanted:
            writers.append(opened())
            stack.callback(writers[-1].close)
    return writers
