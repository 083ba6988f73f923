"""MLflow: a run's metrics and configuration in a tracking store."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
import warnings
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.runs.sinks import IterationInfo, Sink

DATABASE = "mlflow.db"
_TAG = "jtrust.id"
_EXPERIMENT = "jtrust"
# What a server takes in one request, and of one parameter's text.
_MOST_METRICS, _LONGEST_VALUE, _MOST_PARAMETERS = 1000, 500, 100


def tracking_uri(path: Path) -> str:
    """Where a run is tracked: MLFLOW_TRACKING_URI, or else a database in its own directory.

    A database and not a directory of files: MLflow has ceased to maintain those, and refuses them.

    Raises:
      BadArgument: the directory's path has a character that an address of a database cannot have.
    """
    told = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if told:
        return told
    place = str(path.resolve())
    if re.search("[?%]", place):  # SQLAlchemy and MLflow read an escaped one differently
        raise checks.BadArgument(
            "mlflow", True, f"cannot keep its database in {place}: its address would have ? or % "
            "in it; name another run_dir, or set MLFLOW_TRACKING_URI",
        )
    return f"sqlite:///{place}/{DATABASE}"


class MLflow(Sink):
    """An MLflow run; the same one again under the same `name`.

    Rows are sent by a thread of their own, as many at once as have come meanwhile, so that a slow
    server does not slow the run. One that fails is told of once, and tried again; what it has not
    been told in the end is said.

    Args:
      path: the run's directory.
      config: its configuration, whose fields become parameters.
      name: what it is found by again, of letters, digits, - and _.

    Raises:
      BadArgument: there is no store to be had at the tracking address.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], name: str):
        from mlflow.tracking import MlflowClient

        for logger in ("mlflow", "mlflow.store.db.utils", "alembic"):  # tell of each table
            logging.getLogger(logger).setLevel(logging.WARNING)
        uri = tracking_uri(path)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of MLflow's own making
                self._client = MlflowClient(tracking_uri=uri)
            self._begin(path, config, name, local=uri.startswith("sqlite"))
        except Exception as error:  # of MLflow, of requests, of a database
            shown = re.sub(r"//[^/@]*@", "//", uri)
            raise checks.BadArgument(
                "mlflow", True, f"cannot be used at {shown}: {_said(error)}; set "
                "MLFLOW_TRACKING_URI to one that can, or unset it for a database in the run's "
                "directory",
            ) from error
        self._waiting: list[Any] = []
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="mlflow")
        self._sending: Future | None = None
        self._warned = self._ended = False

    def _begin(self, path: Path, config: Mapping[str, Any], name: str, local: bool) -> None:
        experiment = self._experiment(path if local else None)
        found = self._client.search_runs([experiment], f"tags.`{_TAG}` = '{name}'")
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            # A resumed run makes iterations again that were tracked before it was stopped, to
            # the last bit; the store would keep both.
            self._tracked = found[0].data.metrics.get("step", 0)
            return
        run = self._client.create_run(experiment, run_name=path.name, tags={_TAG: name})
        self._id, self._tracked = run.info.run_id, 0
        self._client.log_batch(self._id, params=_parameters(config))

    def _experiment(self, local: Path | None) -> str:
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "").strip() or _EXPERIMENT
        # Else a local store keeps artifacts where the command was called.
        place = None if local is None else (local.resolve() / "mlartifacts").as_uri()
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return self._client.create_experiment(name, artifact_location=place)
            except MlflowException:  # another run has made it meanwhile
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def on_iteration(self, info: IterationInfo) -> None:
        from mlflow.entities import Metric

        if info.step <= self._tracked:
            return
        now = int(1e3 * time.time())
        row = [Metric(k, float(v), now, info.step) for k, v in info.row.items() if v is not None]
        with self._lock:
            self._waiting += row
        if self._sending is None or self._sending.done():
            self._note_failure()
            self._sending = self._thread.submit(self._send)

    def _send(self) -> None:
        """Sends what is waiting; what could not be sent goes on waiting."""
        while True:
            with self._lock:
                batch = self._waiting[:_MOST_METRICS]
            if not batch:
                return
            self._client.log_batch(self._id, metrics=batch)
            with self._lock:
                del self._waiting[: len(batch)]

    def _note_failure(self) -> None:
        error = None if self._sending is None else self._sending.exception()
        if error is not None and not self._warned:
            self._warned = True
            warnings.warn(
                f"MLflow could not be told of an iteration ({_said(error)}); the run goes on, and "
                "it will be tried again", stacklevel=2,
            )

    def on_end(self, info: IterationInfo) -> None:
        self._ended = True

    def close(self) -> None:
        try:
            self._thread.submit(self._send).result()
            self._client.set_terminated(self._id, "FINISHED" if self._ended else "FAILED")
        except Exception as error:  # the run itself is whole
            steps = {metric.step for metric in self._waiting}
            warnings.warn(
                f"MLflow was not told of the last {len(steps)} iterations, nor that the run has "
                f"ended ({_said(error)}); metrics.jsonl has them all", stacklevel=2,
            )
        finally:
            self._thread.shutdown()


def _parameters(config: Mapping[str, Any]) -> list[Any]:
    """A configuration as MLflow's parameters, nested names joined by dots."""
    from mlflow.entities import Param

    def flat(values: Mapping[str, Any], before: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in values.items():
            if isinstance(value, Mapping):
                found |= flat(value, f"{before}{name}.")
            else:
                found[before + name] = value
        return found

    told = flat({k: v for k, v in config.items() if k != "signature"}, "")
    named = {re.sub(r"[^\w\-. /]", "_", k)[:200]: str(v)[:_LONGEST_VALUE] for k, v in told.items()}
    return [Param(k, v) for k, v in list(named.items())[:_MOST_PARAMETERS]]


def _said(error: BaseException) -> str:
    return checks.short(f"{type(error).__name__}: {error}", 300)
