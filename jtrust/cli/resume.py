"""`jtrust resume RUN_DIR`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, Positional, arg

from jtrust import checks
from jtrust.cli.parsing import parse
from jtrust.cli.train import finish
from jtrust.hosts.connecting import ClusterOptions


@dataclasses.dataclass(frozen=True)
class ResumeOptions:
    """Goes on with a run from its newest whole checkpoint, as if it had never stopped."""

    run_dir: Annotated[Positional[str], arg(metavar="RUN_DIR")]
    """Directory of the run."""
    steps: int | None = None
    """Environment steps in total; by default what the run was begun with."""
    devices: int | None = None
    """How many devices to use; by default all, and on a CPU one per core."""
    keep_checkpoints: int | None = None
    """How many of the newest checkpoints to keep, 0 for all; by default as the run was begun."""
    tensorboard: Annotated[bool, FlagCreatePairsOff] = False
    """Also write TensorBoard event files from now on, where the run was begun without."""
    no_tensorboard: Annotated[bool, FlagCreatePairsOff] = False
    """Write none from now on, where the run was begun with them."""
    wandb: Annotated[bool, FlagCreatePairsOff] = False
    """Also send metrics to Weights & Biases from now on, where the run was begun without."""
    no_wandb: Annotated[bool, FlagCreatePairsOff] = False
    """Send none from now on, where the run was begun with it."""
    mlflow: Annotated[bool, FlagCreatePairsOff] = False
    """Also send metrics to MLflow from now on, where the run was begun without."""
    no_mlflow: Annotated[bool, FlagCreatePairsOff] = False
    """Send it none from now on, where the run was begun with it."""
    allow_code: Annotated[bool, FlagCreatePairsOff] = False
    """Call the MODULE:CALLABLE that the run names, though your own jtrust did not begin it."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""
    cluster: Annotated[ClusterOptions, OmitArgPrefixes] = dataclasses.field(
        default_factory=ClusterOptions
    )

    def __post_init__(self):
        for name in ("tensorboard", "wandb", "mlflow"):
            if getattr(self, name) and getattr(self, f"no_{name}"):
                raise checks.BadArgument(name, True, f"--no-{name} says the contrary")

    def wanted(self, name: str) -> bool | None:
        """Whether `name` is to be; None for as it was."""
        return True if getattr(self, name) else False if getattr(self, f"no_{name}") else None


def run(args: Sequence[str]) -> int:
    from jtrust.runs import resume
    from jtrust.runs.compilation_cache import use_compilation_cache
    from jtrust.runs.cpu_devices import use_all_cores
    from jtrust.runs.directory import RunDirectory
    from jtrust.runs.metrics import SERVICES
    from jtrust.runs.progress import make_progress
    from jtrust.sweeps.directory import is_sweep

    options = parse(ResumeOptions, "resume", args)
    connection = options.cluster.connect()
    use_compilation_cache(options.compilation_cache)
    if is_sweep(options.run_dir):
        return _sweep(options)
    config = RunDirectory.open(options.run_dir)[1]
    use_all_cores(
        config.num_envs, options.devices or config.devices, connection.count if connection else 1
    )
    return finish(resume(
        options.run_dir, options.steps, devices=options.devices,
        keep_checkpoints=options.keep_checkpoints, allow_code=options.allow_code,
        make_progress=make_progress, hand_on_signals=False,
        **{name: options.wanted(name) for name in SERVICES},
    ))


def _sweep(options: ResumeOptions) -> int:
    """Goes on with a sweep or a search."""
    from jtrust.cli import sweep
    from jtrust.runs.cpu_devices import use_cores_for_runs
    from jtrust.sweeps.directory import SweepDirectory
    from jtrust.sweeps.progress import make_sweep_progress
    from jtrust.sweeps.sweep import resume_many

    services = ("tensorboard", "wandb", "mlflow")
    for name in ("keep_checkpoints", *services, *(f"no_{name}" for name in services)):
        given = getattr(options, name)
        if given not in (None, False):
            raise checks.BadArgument(name, given, "a sweep goes on as it was begun; leave it out")
    _, record = SweepDirectory.open_sweep(options.run_dir)
    slots = [group["slots"] or 1 for group in record.groups]
    use_cores_for_runs(max(slots, default=len(record.members)), options.devices)
    if record.search:
        if options.steps is not None:
            raise checks.BadArgument("steps", options.steps, "a search goes on as it was begun")
        from jtrust.sweeps.search import resume_search

        found = resume_search(
            options.run_dir, devices=options.devices, allow_code=options.allow_code,
            make_progress=make_sweep_progress, hand_on_signals=False,
        )
        return sweep.finish_search(found, False)
    return sweep.finish(resume_many(
        options.run_dir, options.steps, devices=options.devices, allow_code=options.allow_code,
        make_progress=make_sweep_progress, hand_on_signals=False,
    ), _Shown())


@dataclasses.dataclass(frozen=True)
class _Shown:
    """How a sweep that went on is told of."""

    json: bool = False
    metric: str = "return"
