"""`jtrust profile ENV`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

from jtrust.cli.options import HereOptions
from jtrust.cli.parsing import parse_training
from jtrust.hosts.connecting import current
from jtrust.paths import user_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileOptions(HereOptions):
    """Trains a few iterations, takes the next one apart, and writes a JAX profiler trace."""

    iterations: int = 5
    """Iterations to train before one is taken apart."""
    repeats: int = 7
    """Measurements of each part; their median counts."""
    trace_dir: str | None = None
    """Where to write the trace; by default checkpoints/profile-...-seed<S>."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""


def run(args: Sequence[str]) -> int:
    from jtrust.profiling import profile, to_text
    from jtrust.runs.directory import DEFAULT_PARENT, default_name

    parsed = parse_training(ProfileOptions, "profile", args)
    options = parsed.options
    if options.trace_dir is not None:
        user_path("trace_dir", options.trace_dir)
    environment = options.prepare()
    algorithm = parsed.hyperparameters
    place = DEFAULT_PARENT / default_name(
        f"profile-{environment.name}", algorithm.name, options.seed
    ) if options.trace_dir is None else options.trace_dir
    found = profile(
        environment, algorithm, trace_dir=place, num_envs=options.num_envs,
        unroll_length=options.unroll_length, network=parsed.network, devices=options.devices,
        action_bins=options.action_bins, seed=options.seed, iterations=options.iterations,
        repeats=options.repeats,
    )
    if (connection := current()) is not None and not connection.first:
        return 0
    print(json.dumps(dataclasses.asdict(found)) if options.json else to_text(found))
    return 0
