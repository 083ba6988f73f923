"""What a report is of: run directories, and directories that hold run directories."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks
from jtrust.paths import read_plain, user_path
from jtrust.reporting.tail import MetricsTail, to_float
from jtrust.runs.directory import CONFIG, METRICS
from jtrust.runs.reading import MOST_BYTES, read_json

SWEEP = "sweep.json"
MOST_RUNS = 1000


class Run:
    """One run directory as it is read; nothing in it is trusted.

    Args:
      path: of the directory.
      name: what the page calls it.
      settings: what a sweep says that this run has otherwise than others; None outside of one.

    Attributes:
      config: what its config.json holds; {} where there is none that can be read.
      problems: what is wrong with its files, in sentences.
    """

    def __init__(self, path: Path, name: str, settings: dict[str, Any] | None = None):
        self.path, self.name, self.settings = path, checks.short(name, 120), settings
        self.tail = MetricsTail(path / METRICS)
        self.config: dict[str, Any] = {}
        self._config_problem = ""
        self._stamp: tuple[int, int] | None = None

    def poll(self) -> bool:
        """Reads what is new; whether anything changed."""
        changed = self._read_config()
        return self.tail.poll() or changed

    @property
    def problems(self) -> list[str]:
        found = [self.tail.problem, self._config_problem]
        if count := self.tail.unreadable:
            found.append(f"lines of {METRICS} that are no rows, and are left out: {count:,}")
        if self.tail.truncated:
            found.append(f"only the first {self.tail.rows:,} rows are read")
        return [text for text in found if text]

    def column(self, name: str) -> np.ndarray:
        """Values of one metric, [rows]; NaN where a row has none."""
        return self.tail.column(name)

    @property
    def seed(self) -> Any:
        return self.config.get("seed")

    @property
    def env(self) -> str:
        return _text(self.config.get("env"), "unknown environment")

    @property
    def algorithm(self) -> str:
        return _text(self.config.get("algorithm"), "unknown algorithm")

    def hyperparameter(self, name: str) -> float:
        """A number among the hyperparameters; NaN where there is none of the name."""
        found = self.config.get("hyperparameters")
        return to_float(found.get(name) if isinstance(found, dict) else None)

    def _read_config(self) -> bool:
        path = self.path / CONFIG
        try:
            status = os.stat(path, follow_symlinks=False)
        except OSError:
            stamp = None
        else:
            stamp = (status.st_ino, status.st_mtime_ns)
        if stamp == self._stamp and (stamp or self._config_problem):
            return False
        self._stamp = stamp
        if stamp is None:
            if not self.config:
                self._config_problem = f"no {CONFIG}; its configuration is not known"
            return True
        try:
            found = read_json(read_plain(path, MOST_BYTES))
            if not isinstance(found, dict):
                raise ValueError("it is no object")
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            self._config_problem = checks.short(f"{CONFIG} cannot be read: {said}")
        else:
            self.config, self._config_problem = found, ""
        return True


class Sources:
    """All runs of some directories, in order, and what is new in them.

    Args:
      paths: run directories, or directories with run directories directly in them.
      waiting: accept a directory that has nothing to show yet.

    Raises:
      BadArgument: a path that is no such directory.
    """

    def __init__(self, paths: Iterable[str | os.PathLike], waiting: bool = False):
        self.runs: list[Run] = []
        self.problems: list[str] = []
        self._given = [user_path("RUN_DIR", path) for path in paths]
        if not self._given:
            raise checks.BadArgument("RUN_DIR", "", "give the directory of a run, or several")
        self._by_path: dict[str, Run] = {}
        for path in self._given:
            _check(path, waiting)
        self.poll()
        if not waiting:
            for path in self._given:
                self._check_rows(path)

    def poll(self) -> bool:
        """Reads what is new; whether anything changed."""
        before, problems = list(self.runs), self.problems
        self.problems = []
        for path in self._given:
            found = self._found_at(path)
            if any(run.path != path for run in found):
                self._forget_empty(path)
            for run in found:
                key = os.path.abspath(run.path)
                if key not in self._by_path and len(self.runs) < MOST_RUNS:
                    self._by_path[key] = run
                    self.runs.append(run)
        changed = [run.poll() for run in self.runs]
        return any(changed) or before != self.runs or problems != self.problems

    def _found_at(self, path: Path) -> list[Run]:
        """The runs at a path that was given; those of before, once it is gone."""
        if os.path.lexists(path / SWEEP):
            return self._members(path)
        if os.path.lexists(path / METRICS) or os.path.lexists(path / CONFIG):
            return [Run(path, _name(path))]
        inner = _subdirectories(path)
        if inner:
            return [Run(p, f"{_name(path)}/{p.name}") for p in inner]
        return [Run(path, _name(path))] if not self._by_path else []

    def _forget_empty(self, path: Path) -> None:
        """What was taken for a run that has not begun is a directory of runs."""
        run = self._by_path.get(os.path.abspath(path))
        if run is not None and not run.tail.rows and not run.config:
            del self._by_path[os.path.abspath(path)]
            self.runs.remove(run)

    def _members(self, path: Path) -> list[Run]:
        try:
            found = read_json(read_plain(path / SWEEP, MOST_BYTES))
            members = found["members"]
            named = [(m["name"], m.get("settings", {})) for m in members]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            self.problems.append(checks.short(f"{path / SWEEP} cannot be read: {said}"))
            return [Run(p, f"{_name(path)}/{p.name}") for p in _subdirectories(path)]
        runs = []
        for name, settings in named:
            # A member is a directory directly in the sweep's, and not through a link.
            plain = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
            if not plain or "\0" in name or (path / name).is_symlink():
                self.problems.append(checks.short(
                    f"{path / SWEEP} names the member {name!r}, which is no directory in it"
                ))
                continue
            told = settings if isinstance(settings, dict) else {}
            runs.append(Run(path / name, f"{_name(path)}/{name}", told))
        return runs

    def _check_rows(self, path: Path) -> None:
        """Raises `BadArgument` where nothing at `path` has a row."""
        runs = [run for run in self.runs if run.path == path or run.path.parent == path]
        if any(run.tail.rows for run in runs):
            return
        said = next((text for run in runs for text in run.problems if METRICS in text), "")
        raise checks.BadArgument(
            "RUN_DIR", path,
            f"{said or f'has no rows in a {METRICS}'}; give the directory of a run that has "
            "made an iteration, or one that holds such directories",
        )


def _check(path: Path, waiting: bool) -> None:
    """Raises `BadArgument` where there is no directory at `path`, nor one about to come."""
    if path.is_dir():
        try:
            os.listdir(path)
        except OSError as error:
            raise checks.BadArgument(
                "RUN_DIR", path, f"cannot be read ({error.strerror})"
            ) from error
        return
    if os.path.lexists(path):
        raise checks.BadArgument("RUN_DIR", path, "is a file; give the directory of a run")
    if waiting and any(path.parent.glob(f".{glob.escape(path.name)}.starting-*")):
        return  # a run that compiles its program
    raise checks.BadArgument("RUN_DIR", path, "does not exist; give the directory of a run")


def _subdirectories(path: Path) -> list[Path]:
    """Those directly in `path` that hold a run."""
    try:
        inner = sorted(
            (p for p in path.iterdir() if not p.is_symlink() and p.is_dir()), key=_by_number
        )
    except OSError:
        return []
    return [p for p in inner if os.path.lexists(p / METRICS)]


def _by_number(path: Path) -> list[tuple[int, str]]:
    """run-2 before run-10."""
    parts = re.split(r"(\d{1,18})", path.name)
    return [(int(part) if i % 2 else 0, part) for i, part in enumerate(parts)]


def _name(path: Path) -> str:
    return path.name or path.resolve().name or str(path)


def _text(value: Any, otherwise: str) -> str:
    return checks.short(value, 80) if isinstance(value, str) and value else otherwise


def as_text(value: Any) -> str:
    """A setting as the page writes it."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str):
        return checks.short(value, 80)
    try:
        return checks.short(json.dumps(value), 80)
    except (TypeError, ValueError, RecursionError):
        return f"something of type {type(value).__name__}"
