"""`jtrust evaluate RUN_DIR`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from jtrust import checks
from jtrust.cli.parsing import chosen_step, parse


@dataclasses.dataclass(frozen=True)
class EvaluateOptions:
    """Whole episodes of a run's policy, each environment counted once."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    episodes: int = 64
    """How many, side by side."""
    seed: int = 0
    """Of the start states, and of the actions with --stochastic."""
    step: int | None = None
    """The checkpoint of this step; by default the newest."""
    best: Annotated[bool, FlagCreatePairsOff] = False
    """The checkpoint that --keep-best kept."""
    stochastic: bool = False
    """Sample actions; by default the policy's mode acts."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""
    allow_code: Annotated[bool, FlagCreatePairsOff] = False
    """Call the MODULE:CALLABLE that the run names, though your own jtrust did not begin it."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""


def run(args: Sequence[str]) -> int:
    from jtrust.runs import evaluate
    from jtrust.runs.compilation_cache import use_compilation_cache

    options = parse(EvaluateOptions, "evaluate", args)
    use_compilation_cache(options.compilation_cache)
    found = evaluate(
        options.run_dir, episodes=options.episodes, seed=options.seed, step=chosen_step(options),
        stochastic=options.stochastic, allow_code=options.allow_code,
    )
    print(json.dumps(found) if options.json else checks.printable(_sentence(found)))
    return 0


def _sentence(found: dict[str, Any]) -> str:
    """What an evaluation found."""
    broken = found["nonfinite"]
    whole = found["episodes"] - broken
    start = f"{found['algorithm']} on {found['env']} after {found['step']:,} steps: "
    if not whole:
        return start + f"no whole episode; all {broken} ended in NaN or infinity"
    return start + (
        f"return {found['return_mean']:.1f} ± {found['return_std']:.1f}, "
        f"length {found['length_mean']:.1f}, "
        + "".join(f"{name} {cost:.4g}, " for name, cost in found.get("costs", {}).items())
        + f"over {whole} episodes"
        + f"; {broken} more ended in NaN or infinity and do not count" * bool(broken)
    )
