"""Runs that differ in nothing but their seed are one setting; how settings differ."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from jtrust.reporting.sources import Run, as_text
from jtrust.runs.config import BOOKKEEPING

_LONGEST_LABEL = 80


@dataclasses.dataclass
class Setting:
    """Runs of one configuration.

    Attributes:
      label: what the page calls it, by what differs from the others.
      fields: what it is made of, flat: {"hyperparameters.max_kl": 0.01, ...}.
      runs: one for each seed.
    """

    label: str
    fields: dict[str, Any]
    runs: list[Run]


def settings_of(runs: Sequence[Run]) -> list[Setting]:
    """Runs by their setting, in the order of the first of each."""
    found: dict[str, Setting] = {}
    for run in runs:
        fields = _fields(run)
        # A sweep says itself which of its members belong together, also before they begin.
        key = _key(fields if run.settings is None else [str(run.path.parent), run.settings])
        found.setdefault(key, Setting("", fields, [])).runs.append(run)
    settings = list(found.values())
    differing = differing_fields(settings)
    labels: dict[str, int] = {}
    for setting in settings:
        label = _label(setting, differing)
        labels[label] = count = labels.get(label, 0) + 1
        setting.label = label if count == 1 else f"{label} ({count})"
    return settings


def differing_fields(settings: Sequence[Setting]) -> list[str]:
    """Names of what is not the same in all settings, in their order; None is not known."""
    names = dict.fromkeys(name for setting in settings for name in setting.fields)
    return [name for name in names if _differs([s.fields.get(name) for s in settings], name)]


def _differs(values: Sequence[Any], name: str) -> bool:
    known = [v for v in values if v is not None or name not in ("env", "algorithm")]
    return len({_key(value) for value in known}) > 1


def _fields(run: Run) -> dict[str, Any]:
    if run.settings is not None:
        # Of a member that has not begun, only what the sweep says is known.
        named = (run.env, run.algorithm) if run.config else (None, None)
        return {"env": named[0], "algorithm": named[1]} | flat(run.settings)
    return flat({k: v for k, v in run.config.items() if k not in BOOKKEEPING})


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, names joined by dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def short_name(field: str) -> str:
    """A field without the group it is in."""
    return field.rpartition(".")[2]


def _label(setting: Setting, differing: Sequence[str]) -> str:
    run, named = setting.runs[0], ("env", "algorithm")
    parts = [f"{short_name(name)} {as_text(setting.fields[name])}" for name in differing
             if name not in named and name in setting.fields]
    # What is the same everywhere stands in the title.
    if not parts or any(name in differing for name in named):
        parts = [run.env, run.algorithm, *parts]
    label = " · ".join(parts)
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1] + "…"
