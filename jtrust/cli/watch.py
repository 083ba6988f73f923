"""`jtrust watch RUN_DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import Positional, arg

from jtrust import checks
from jtrust.cli.parsing import parse


@dataclasses.dataclass(frozen=True)
class WatchOptions:
    """Serves the page of `jtrust report` on this machine, kept up to date while runs go on."""

    run_dirs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN_DIR...")]
    """Directories of runs, or directories that hold run directories, such as a sweep's."""
    port: int = 0
    """Of 127.0.0.1; by default a free one."""


def run(args: Sequence[str]) -> int:
    from jtrust.reporting import watch

    options = parse(WatchOptions, "watch", args)
    watch(options.run_dirs, options.port, lambda text: print(checks.printable(text), flush=True))
    return 0
