"""Where metrics go: a line of JSON per iteration, and optional services beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
import os
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.paths import open_plain
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import RunDirectory
from jtrust.runs.mlflow_sink import MLflow
from jtrust.runs.sinks import IterationInfo, Sink


def to_row(metrics: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Device scalars as JSON's numbers; what is not finite, or does not exist yet, becomes None."""

    def plain(value):
        value = value.item() if hasattr(value, "item") else value
        return None if isinstance(value, float) and not math.isfinite(value) else value

    row = {k: plain(v) for k, v in metrics.items()}
    if row.get("episode/length") == 0:  # until one has ended
        row["episode/return"] = row["episode/length"] = None
        row |= {k: None for k in row if k.startswith("cost/") and k.count("/") == 1}
    return row


class JsonLines(Sink):
    """Appends to `metrics.jsonl`, each line whole and at once."""

    def __init__(self, path: Path):
        self._path = path
        self._file = open_plain(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_iteration(self, info: IterationInfo) -> None:
        line = json.dumps(dict(info.row), allow_nan=False).encode() + b"\n"
        try:
            written = self._file.write(line)
        except OSError as error:
            raise OSError(f"{self._path} could not be written: {error.strerror}") from error
        if written < len(line):
            raise OSError(f"{self._path} could not be written: no room left")

    def close(self) -> None:
        self._file.close()


# What each needs that jtrust does not.
SERVICES = {
    "tensorboard": ("tensorboardX",), "wandb": ("wandb",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
}


def check_services(**wanted: bool) -> None:
    """Raises `BadArgument` where a service's package is not installed; nothing is imported.

    Args:
      **wanted: for each of `SERVICES`, whether it is.
    """
    for name, modules in SERVICES.items():
        value = wanted.get(name, False)
        checks.truth_value(name, value)
        if value and not all(m in sys.modules or importlib.util.find_spec(m) for m in modules):
            raise checks.BadArgument(name, True, f"needs `pip install 'jtrust[{name}]'`")


@dataclasses.dataclass(frozen=True)
class Services:
    """What is kept and told of a run beside its metrics; None for as it was begun.

    Attributes:
      keep_checkpoints: how many of the newest checkpoints; 0 for all.
      tensorboard: whether TensorBoard event files are written.
      wandb: whether metrics go to Weights & Biases.
      mlflow: whether they go to MLflow.
    """

    keep_checkpoints: int | None
    tensorboard: bool | None
    wandb: bool | None
    mlflow: bool | None = None

    def checked(self, kept: bool) -> Services:
        """The same.

        Args:
          kept: whether the run is kept in a directory.

        Raises:
          BadArgument: what will not do, needs a directory, or is not installed.
        """
        checks.whole_number("keep_checkpoints", self.keep_checkpoints, minimum=0)
        for name in SERVICES:
            wanted = getattr(self, name)
            checks.truth_value(name, wanted)
            if wanted and not kept:
                raise checks.BadArgument(name, wanted, "needs a run_dir to write into")
        check_services(**{name: bool(getattr(self, name)) for name in SERVICES})
        return self

    def into(self, config: RunConfig) -> RunConfig:
        """The configuration with what is not None in place of what it has.

        Raises:
          BadArgument: what will not do, or a service's package is not installed.
        """
        changes: dict[str, Any] = {
            name: value for name, value in dataclasses.asdict(self).items() if value is not None
        }
        if self.keep_checkpoints is not None:
            changes["keep_checkpoints"] = checks.whole_number(
                "keep_checkpoints", self.keep_checkpoints, minimum=0
            )
        config = dataclasses.replace(config, **changes)
        check_services(**{name: getattr(config, name) for name in SERVICES})
        if config.wandb and not config.wandb_id:
            config = dataclasses.replace(config, wandb_id=secrets.token_hex(4))
        if config.mlflow and not config.mlflow_id:
            config = dataclasses.replace(config, mlflow_id=secrets.token_hex(8))
        return config


class TensorBoard(Sink):
    """Event files beside the metrics, for TensorBoard.

    Args:
      path: where they go.
      done: the step from which a run goes on; what earlier files have behind it is hidden.
    """

    def __init__(self, path: Path, done: int = 0):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(path), purge_step=done + 1 if done else None)

    def on_iteration(self, info: IterationInfo) -> None:
        for key, value in info.row.items():
            if value is not None:
                self._writer.add_scalar(key, value, info.step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases(Sink):
    """A Weights & Biases run; the same one again under the same `name`."""

    def __init__(self, path: Path, config: Mapping[str, Any], name: str):
        import wandb

        self._run = wandb.init(
            project="jtrust", dir=str(path), config=dict(config), id=name, resume="allow"
        )

    def on_iteration(self, info: IterationInfo) -> None:
        self._run.log({k: v for k, v in info.row.items() if v is not None}, step=info.step)

    def close(self) -> None:
        self._run.finish()


def open_writers(
    stack: contextlib.ExitStack, directory: RunDirectory, config: RunConfig, done: int = 0
) -> list[Sink]:
    """What a run's metrics go to from step `done` on; each is closed with the stack."""
    path = directory.path
    writers: list[Sink] = []
    for wanted, opened in (
        (True, lambda: JsonLines(directory.metrics_path)),
        (config.tensorboard, lambda: TensorBoard(path, done)),
        (config.wandb, lambda: WeightsAndBiases(
            path, dataclasses.asdict(config), config.wandb_id
        )),
        (config.mlflow, lambda: MLflow(path, dataclasses.asdict(config), config.mlflow_id)),
    ):
        if wanted:
            writers.append(opened())
            stack.callback(writers[-1].close)
    return writers
