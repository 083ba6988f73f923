"""A sweep's directory: `sweep.json`, and a directory for each of its runs."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import SWEEP, RunDirectory
from jtrust.runs.reading import read_json
from jtrust.sweeps.members import changed
from jtrust.sweeps.settings import Settings
from jtrust.version import __version__

FORMAT = 1
_NAME = re.compile(r"[\w+=][\w.+=,-]*")
_FIELDS = {
    "format": int, "jtrust": str, "base": dict, "members": list, "groups": list, "ended": dict,
    "search": dict,
}


@dataclasses.dataclass
class SweepRecord:
    """All that defines a sweep, as `sweep.json` has it.

    Attributes:
      base: fields of a run's configuration.
      members: {"name", "seed", "settings", "changes"} of each; the last are to `base`.
      groups: {"members" (names), "varied" (which numbers are arguments), "slots", "devices"} of
        each program; the last two None until it was compiled.
      ended: {name of a member that ended before its last iteration: why}.
      search: what is searched, as `jtrust.sweeps.search` says; {} for nothing.
      jtrust: version that wrote it.
      format: of this file.
    """

    base: dict[str, Any]
    members: list[dict[str, Any]]
    groups: list[dict[str, Any]]
    ended: dict[str, str] = dataclasses.field(default_factory=dict)
    search: dict[str, Any] = dataclasses.field(default_factory=dict)
    jtrust: str = __version__
    format: int = FORMAT

    def config(self, member: dict[str, Any], where: str) -> RunConfig:
        """The configuration of a member's run, checked as any other.

        Raises:
          BadArgument: it is none.
        """
        return RunConfig.from_json(json.dumps(changed(self.base, member["changes"])), where)

    def settings(self, member: dict[str, Any]) -> Settings:
        """What a member has otherwise than others; layers as tuples."""
        return {
            k: tuple(v) if isinstance(v, list) else v for k, v in member["settings"].items()
        }


class SweepDirectory(RunDirectory):
    """The directory of a sweep, held by at most one process that writes."""

    def write_record(self, record: SweepRecord) -> None:
        """Writes `sweep.json`, whole or not at all."""
        self.write(SWEEP, json.dumps(dataclasses.asdict(record), indent=1) + "\n")

    @classmethod
    def open_sweep(cls, path: str | os.PathLike) -> tuple[SweepDirectory, SweepRecord]:
        """An existing sweep.

        Raises:
          BadArgument: none there, or a damaged file.
        """
        directory = cls(path)
        text = directory.read(SWEEP, "sweep")
        try:
            fields = read_json(text)
            _check(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise checks.BadArgument(
                "RUN_DIR", path, f"its {SWEEP} is damaged ({checks.short(str(error))})"
            ) from error
        return directory, SweepRecord(**fields)


def is_sweep(path: str | os.PathLike) -> bool:
    """Whether a directory is a sweep's."""
    try:
        return (Path(path).expanduser() / SWEEP).is_file()
    except (OSError, ValueError, RuntimeError):
        return False


def _check(fields: Any) -> None:
    """Raises ValueError, KeyError or TypeError where a sweep could not have such fields."""
    if not isinstance(fields, dict):
        raise ValueError("it is no object")
    if fields.get("format") != FORMAT:
        raise ValueError(f"format {fields.get('format')!r}, and this version reads {FORMAT}")
    if set(fields) != set(_FIELDS):
        raise ValueError(f"its fields are {', '.join(sorted(map(str, fields)))}")
    for name, kind in _FIELDS.items():
        if not isinstance(fields[name], kind):
            raise ValueError(f"{name} is {type(fields[name]).__name__}")
    names = [_member_name(member) for member in fields["members"]]
    if len(set(names)) < len(names):
        raise ValueError("two members have one name")
    for group in fields["groups"]:
        if not set(group["members"]) <= set(names):
            raise ValueError("a group has a member that there is not")
        if not all(type(i) is int and 0 <= i < 1000 for i in group["varied"]):
            raise ValueError(f"varied is {group['varied']!r}")
        for key in ("slots", "devices"):
            if not (group[key] is None or (type(group[key]) is int and 0 < group[key] < 2**20)):
                raise ValueError(f"{key} is {group[key]!r}")


def _member_name(member: dict[str, Any]) -> str:
    name = member["name"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"a member cannot be called {name!r}")
    if type(member["seed"]) is not int or not isinstance(member["settings"], dict):
        raise ValueError(f"{name} has no seed or settings")
    if not isinstance(member["changes"], dict):
        raise ValueError(f"{name} has no changes")
    return name
