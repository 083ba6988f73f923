"""`jtrust report RUN_DIR...`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from jtrust import checks
from jtrust.cli.parsing import parse


@dataclasses.dataclass(frozen=True)
class ReportOptions:
    """Writes one HTML page about runs: curves, how they differ, and what looks wrong."""

    run_dirs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN_DIR...")]
    """Directories of runs, or directories that hold run directories, such as a sweep's."""
    output: str = "report.html"
    """Where the page goes; a file that is there is replaced."""


def run(args: Sequence[str]) -> int:
    from jtrust.reporting import report

    options = parse(ReportOptions, "report", args)
    path = report(options.run_dirs, options.output)
    print(checks.printable(f"report in {path}, {path.stat().st_size / 1e6:.1f} MB"))
    return 0
