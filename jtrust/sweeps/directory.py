"""A sweep's directory: `sweep.json`, and a directory for each of its runs."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from jtrust import checks
from jtrust.runs.config import RunConfig
from jtrust.runs.directory import SWEEP, RunDirectory
from jtrust.runs.reading import MOST_BYTES, read_json
from jtrust.sweeps.members import changed
from jtrust.sweeps.reading import FORMAT, check
from jtrust.sweeps.settings import Settings
from jtrust.version import __version__

DATABASE = "search.sqlite"  # of a search


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
        """Writes `sweep.json`, whole or not at all.

        Raises:
          BadArgument: it would be larger than what is read.
        """
        text = json.dumps(dataclasses.asdict(record), indent=1) + "\n"
        if len(text) > MOST_BYTES:
            raise checks.BadArgument(
                "seeds", len(record.members), "and settings are more runs than one sweep can have"
            )
        self.write(SWEEP, text)

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
            check(fields)
            record = SweepRecord(**fields)
            for member in record.members:
                if record.config(member, str(path)).seed != member["seed"]:
                    raise ValueError(f"the seed of {member['name']} is another in its changes")
        except checks.BadArgument:
            raise
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise checks.BadArgument(
                "RUN_DIR", path, f"its {SWEEP} is damaged ({checks.short(str(error))})"
            ) from error
        for name in (DATABASE, *(member["name"] for member in record.members)):
            if (directory.path / name).is_symlink():
                raise checks.BadArgument(
                    "RUN_DIR", path, f"{name} in it is a symbolic link, and a sweep's runs lie in "
                    "its own directory; put what it leads to in its place",
                )
        return directory, record


def is_sweep(path: str | os.PathLike) -> bool:
    """Whether a directory is a sweep's."""
    try:
        return (Path(path).expanduser() / SWEEP).is_file()
    except (OSError, ValueError, RuntimeError):
        return False
