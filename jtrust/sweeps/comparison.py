"""Runs compared: by setting, with the interquartile mean and its interval over seeds."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks, statistics
from jtrust.runs.config import BOOKKEEPING, RunConfig
from jtrust.runs.directory import METRICS, RunDirectory
from jtrust.runs.result import columns
from jtrust.runs.rows import read_rows
from jtrust.sweeps.directory import SweepDirectory, is_sweep

# The share of a run, at its end, whose rows make its figure.
LAST = 0.1
_SHORT_NAMES = {"return": "episode/return", "evaluation": "evaluation/return"}


@dataclasses.dataclass(frozen=True)
class Compared:
    """One run.

    Attributes:
      name: of its directory.
      seed: of its random key.
      settings: by which it is told apart from others.
      value: mean of the metric over the last tenth of its iterations; None without any.
      step: environment steps that it has come to.
      ended: why it ended early; "" where it did not.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    value: float | None
    step: int
    ended: str = ""


@dataclasses.dataclass(frozen=True)
class SettingResult:
    """All seeds of one setting.

    Attributes:
      settings: by name.
      seeds: those that have a value.
      values: theirs.
      iqm: interquartile mean; None without any.
      low, high: of its 95 % interval, by bootstrap over seeds; None with fewer than two.
      ended: {name: why} of runs that ended early or have no value.
      steps: the fewest that one of its runs has come to.
    """

    settings: Mapping[str, Any]
    seeds: list[int]
    values: list[float]
    iqm: float | None
    low: float | None
    high: float | None
    ended: Mapping[str, str]
    steps: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Runs by setting, in the order in which they came.

    Attributes:
      metric: the metric compared, by its name in metrics.jsonl.
      settings: one for each.
    """

    metric: str
    settings: list[SettingResult]

    def as_json(self) -> dict[str, Any]:
        """What `jtrust compare --json` prints."""
        return dataclasses.asdict(self)

    @property
    def best(self) -> SettingResult | None:
        """The setting of the highest interquartile mean."""
        found = [s for s in self.settings if s.iqm is not None]
        return max(found, key=lambda s: s.iqm or 0.0, default=None)

    def as_text(self) -> str:
        """A table, one line for each setting."""
        names = list(dict.fromkeys(name for s in self.settings for name in s.settings))
        shown = f"{self.metric}, interquartile mean"
        head = [*names, "seeds", shown, "95 % over seeds", "least", "most", "steps"]
        rows = [[checks.printable(name) for name in head]]
        for one in self.settings:
            rows.append([
                *(_shown(one.settings.get(name)) for name in names), str(len(one.seeds)),
                _number(one.iqm), "-" if one.low is None else f"{one.low:.4g} to {one.high:.4g}",
                _number(min(one.values, default=None)), _number(max(one.values, default=None)),
                f"{one.steps:,}",
            ])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
        ]
        for one in self.settings:
            lines += [checks.printable(f"{name}: {why}") for name, why in one.ended.items()]
        return "\n".join(lines)


def compare(
    directories: Sequence[str | os.PathLike], metric: str = "return"
) -> Comparison:
    """Compares runs: each directory is that of a run or of a sweep.

    Runs whose configurations differ in nothing but the seed are one setting.

    Args:
      directories: where they are.
      metric: "return" (`episode/return`), "evaluation" (`evaluation/return`), or any name in
        metrics.jsonl.

    Raises:
      BadArgument: no directory, one that is neither, or a metric that no run has.
    """
    if not directories:
        raise checks.BadArgument("DIR", directories, "must be directories of runs or sweeps")
    found: list[tuple[str, Path, RunConfig, Mapping[str, Any] | None, str]] = []
    for given in directories:
        found += _of_sweep(given) if is_sweep(given) else [_of_run(given)]
    alone = len(directories) == 1 and found and found[0][3] is not None
    configs = [config for _, _, config, _, _ in found]
    settings = [s or {} for *_, s, _ in found] if alone else _differences(configs)
    return compare_rows([
        (name, config.seed, of_run, columns(read_rows(path / METRICS)), ended)
        for (name, path, config, _, ended), of_run in zip(found, settings, strict=True)
    ], metric)


def compare_rows(
    runs: Iterable[tuple[str, int, Mapping[str, Any], Mapping[str, np.ndarray], str]],
    metric: str = "return",
) -> Comparison:
    """Compares runs whose metrics are at hand: (name, seed, settings, metrics, why it ended)."""
    key = metric_key(metric)
    runs = list(runs)
    known = sorted({name for *_, metrics, _ in runs for name in metrics})
    if known:
        checks.one_of("metric", key, known)
    compared = [
        Compared(
            name, seed, settings, last_value(metrics, key),
            int(metrics["step"][-1]) if len(metrics.get("step", ())) else 0, ended,
        ) for name, seed, settings, metrics, ended in runs
    ]
    groups: dict[tuple, list[Compared]] = {}
    for one in compared:
        place = tuple((k, str(v)) for k, v in one.settings.items())
        groups.setdefault(place, []).append(one)
    return Comparison(key, [_summary(some) for some in groups.values()])


def metric_key(metric: str) -> str:
    """A metric's name in metrics.jsonl."""
    return _SHORT_NAMES.get(metric, metric)


def last_value(metrics: Mapping[str, np.ndarray], key: str) -> float | None:
    """The mean of a metric over the last tenth of a run's iterations, where it has a value; where
    it has none there, its newest."""
    values = np.asarray(metrics.get(key, ()), np.float64)
    last = values[-max(math.ceil(LAST * len(values)), 1):]
    last = last[np.isfinite(last)]
    if not len(last):
        last = values[np.isfinite(values)][-1:]
    return float(np.mean(last)) if len(last) else None


def _summary(runs: Sequence[Compared]) -> SettingResult:
    there = [run for run in runs if run.value is not None]
    values = [float(run.value or 0.0) for run in there]
    low = high = None
    if len(values) > 1:
        low, high = statistics.bootstrap_interval(
            statistics.interquartile_mean, {"": values}
        )
    return SettingResult(
        settings=dict(runs[0].settings), seeds=[run.seed for run in there], values=values,
        iqm=statistics.interquartile_mean({"": values}) if values else None, low=low, high=high,
        ended={
            run.name: run.ended or "has no value yet" for run in runs
            if run.ended or run.value is None
        },
        steps=min(run.step for run in runs),
    )


def _of_run(given: str | os.PathLike) -> tuple[str, Path, RunConfig, None, str]:
    directory, config = RunDirectory.open(given)
    return str(given), directory.path, config, None, ""


def _of_sweep(
    given: str | os.PathLike,
) -> list[tuple[str, Path, RunConfig, Mapping[str, Any] | None, str]]:
    directory, record = SweepDirectory.open_sweep(given)
    return [
        (
            member["name"], directory.path / member["name"],
            record.config(member, str(directory.path)), record.settings(member),
            record.ended.get(member["name"], ""),
        ) for member in record.members
    ]


def _differences(configs: Sequence[RunConfig]) -> list[dict[str, Any]]:
    """In what configurations differ, by name; numbers of the algorithm by their own."""
    flat = [_flat(config) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one)
    differing = [name for name in names if len({str(one.get(name)) for one in flat}) > 1]
    return [{name: one[name] for name in differing if name in one} for one in flat]


def _flat(config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in dataclasses.asdict(config).items():
        if name in BOOKKEEPING:
            continue
        found |= value if isinstance(value, dict) else {name: value}
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        value = "x".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else checks.printable(str(value))
