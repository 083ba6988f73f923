"""`jtrust compare DIR...`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from jtrust.cli.parsing import parse


@dataclasses.dataclass(frozen=True)
class CompareOptions:
    """Runs and sweeps by setting, with the interquartile mean and its interval over seeds."""

    directories: Annotated[Positional[tuple[str, ...]], arg(metavar="DIR")]
    """Directories of runs or of sweeps."""
    metric: str = "return"
    """return (episode/return), evaluation (evaluation/return), or any name in metrics.jsonl; its
    mean over the last tenth of each run."""
    json: Annotated[bool, FlagCreatePairsOff] = False
    """Print one JSON object on standard output and nothing else there."""


def run(args: Sequence[str]) -> int:
    from jtrust.sweeps.comparison import compare

    options = parse(CompareOptions, "compare", args)
    found = compare(options.directories, options.metric)
    print(json.dumps(found.as_json()) if options.json else found.as_text())
    return 0
