"""`jtrust render RUN_DIR`."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from jtrust import checks
from jtrust.cli.parsing import chosen_step, parse


@dataclasses.dataclass(frozen=True)
class RenderOptions:
    """Shows what a run's policy does: the best, the median and the worst of some episodes."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    output: str | None = None
    """File to write: .mp4, .gif, .html (plays in a browser, without a network) or .png (a strip of
    pictures). By default render.mp4 in RUN_DIR, or .html where no video can be made here."""
    episodes: int = 16
    """How many, side by side, those of `jtrust evaluate`; 1 shows that one."""
    seed: int = 0
    """Of the start states, and of the actions with --stochastic."""
    step: int | None = None
    """The checkpoint of this step; by default the newest."""
    best: Annotated[bool, FlagCreatePairsOff] = False
    """The checkpoint that --keep-best kept."""
    stochastic: bool = False
    """Sample actions; by default the policy's mode acts."""
    show: tuple[str, ...] = ()
    """Beside the return: kl (of the checkpoint before to this one, in nats), value."""
    width: int | None = None
    """Pixels; by default 640, of .gif and each picture of .png 320."""
    height: int | None = None
    """Pixels; by default 480, or 240."""
    fps: float | None = None
    """Frames a second; by default 30, of .gif 20."""
    seconds: float | None = None
    """Of each episode, from its beginning; by default 60, of .gif 5."""
    camera: str | None = None
    """Name of one of the model's, or free; by default one that follows the robot."""
    json: bool = False
    """Print one JSON object on standard output and nothing else there."""
    allow_code: Annotated[bool, FlagCreatePairsOff] = False
    """Call the MODULE:CALLABLE that the run names, though your own jtrust did not begin it."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""


def run(args: Sequence[str]) -> int:
    from jtrust.deploy.pictures import import_without_opengl
    from jtrust.deploy.render import render
    from jtrust.runs.compilation_cache import use_compilation_cache

    options = parse(RenderOptions, "render", args)
    import_without_opengl()
    use_compilation_cache(options.compilation_cache)
    how = {
        field.name: getattr(options, field.name) for field in dataclasses.fields(options)
        if field.name not in ("run_dir", "json", "compilation_cache", "step", "best")
    }
    how["step"] = chosen_step(options)
    # A file that is half written is taken away at the end, also where that is a signal's.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        found = render(
            options.run_dir, **how,
            say=lambda line: print(f"{checks.printable(line)} ...", file=sys.stderr),
        )
    finally:
        signal.signal(signal.SIGTERM, before)
    print(json.dumps(found) if options.json else checks.printable(_sentence(found)))
    return 0


def _sentence(found: dict[str, Any]) -> str:
    """What was drawn."""
    shown = ", ".join(
        f"{one['which']} {one['return']:.1f} ({one['length']} steps)" for one in found["shown"]
    )
    broken = found["nonfinite"]
    return (
        f"{found['output']}: {found['frames']} frames, drawn by {found['drawn_by']}; of "
        f"{found['episodes']} episodes {shown}"
        + f"; {broken} ended in NaN or infinity" * bool(broken)
    )
