"""`jtrust plan ENV --target DEVICE`."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence

from jtrust.cli.options import EnvironmentOptions
from jtrust.cli.parsing import parse_training


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanOptions(EnvironmentOptions):
    """Compiles one iteration for devices that need not be here, and runs nothing."""

    target: str
    """h100, h100:4 or another GPU; a TPU's topology, such as v5e:2x2; cpu; or a file with XLA's
    description of a GPU."""
    devices: int | None = None
    """How many of the target's devices to use; by default all."""
    members: int = 1
    """How many runs of a sweep are one program (`jtrust sweep`), spread over the devices."""
    largest: bool = True
    """Also find the largest number of environments that fits, by compiling a few programs more."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


def run(args: Sequence[str]) -> int:
    from jtrust.planning import plan
    from jtrust.planning.report import to_text

    parsed = parse_training(PlanOptions, "plan", args)
    options = parsed.options
    with options.told_as_options():
        found = plan(
            options.env, parsed.hyperparameters, target=options.target,
            env_options=options.of_environment(), num_envs=options.num_envs,
            unroll_length=options.unroll_length, network=parsed.network,
            action_bins=options.action_bins, devices=options.devices, largest=options.largest,
            members=options.members,
            say=lambda line: print(f"{line} ...", file=sys.stderr),
        )
    print(json.dumps(dataclasses.asdict(found)) if options.json else to_text(found))
    return 0
