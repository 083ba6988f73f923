"""`jtrust train ENV`."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff

from jtrust import checks
from jtrust.cli.options import HereOptions
from jtrust.cli.parsing import parse_training
from jtrust.cli.presets import with_preset
from jtrust.paths import user_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainOptions(HereOptions):
    """What to train in, for how long, and where to keep it."""

    preset: Annotated[bool, FlagCreatePairsOff] = False
    """Take the settings that are known to be better than the defaults for this task; what is given
    beside it wins."""
    steps: int = 1_000_000
    """Environment steps to train for; rounded up to whole iterations."""
    run_dir: str | None = None
    """Where to keep the run; by default checkpoints/<suite>-<name>-<algorithm>-seed<S>."""
    checkpoint_every: int | None = None
    """Iterations between checkpoints; by default a tenth of the run."""
    keep_checkpoints: int = 0
    """How many of the newest checkpoints to keep; 0 keeps all."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run directory."""
    wandb: bool = False
    """Also send metrics to Weights & Biases."""
    mlflow: bool = False
    """Also send metrics to MLflow: to MLFLOW_TRACKING_URI, or a database in the run directory."""
    evaluate_every: int | None = None
    """Iterations from one evaluation of the policy's mode to the next; by default none."""
    keep_best: bool = False
    """Also keep the checkpoint of the best evaluation; --best of other commands takes it."""
    stop_at: float | None = None
    """End the run once an evaluation's mean return is at least this."""
    render_every: int | None = None
    """Iterations from one picture of an episode to the next, in the run directory; by default
    none (extra `render`)."""
    initialize_from: str | None = None
    """A run from whose policy, values and normaliser this one starts."""


def run(args: Sequence[str]) -> int:
    from jtrust.environments import split_name
    from jtrust.runs import train
    from jtrust.runs.metrics import SERVICES, check_services
    from jtrust.runs.progress import make_progress

    parsed = parse_training(TrainOptions, "train", with_preset(args, TrainOptions))
    options = parsed.options
    if options.run_dir is not None:
        user_path("run_dir", options.run_dir)
    services = {name: getattr(options, name) for name in SERVICES}
    check_services(**services)
    return finish(train(
        options.prepare(), parsed.hyperparameters, num_envs=options.num_envs,
        total_steps=options.steps, seed=options.seed, run_dir=options.run_dir,
        unroll_length=options.unroll_length, network=parsed.network,
        action_bins=options.action_bins, checkpoint_every=options.checkpoint_every,
        keep_checkpoints=options.keep_checkpoints, devices=options.devices,
        evaluate_every=options.evaluate_every, keep_best=options.keep_best,
        stop_at=options.stop_at, initialize_from=options.initialize_from,
        preset="/".join(split_name(options.env)) if options.preset else "",
        sinks=renders(options.render_every),
        make_progress=make_progress, **services,
        default_run_dir=options.run_dir is None, hand_on_signals=False,
    ))


def renders(every: int | None) -> list[Any]:
    """The sink of `--render-every`, where it is given."""
    if every is None:
        return []
    from jtrust.deploy.renders import Renders

    return [Renders(every, lambda line: print(checks.printable(line), file=sys.stderr))]


def finish(result: Any) -> int:
    """Tells what a run came to; its exit status."""
    import numpy as np

    from jtrust.hosts.group import Hosts
    from jtrust.runs.signals import exit_status

    if not Hosts.of(result.trainer.mesh).first:
        return 0 if result.stopped_by is None else exit_status(result.stopped_by)
    metrics = result.metrics
    if metrics:
        step, seconds = int(metrics["step"][-1]), metrics["time/seconds"][-1]
        reward = metrics["episode/return"][-1]
        shown = "no episode has ended yet" if np.isnan(reward) else f"return {reward:.1f}"
        done = f"{step:,} steps, {seconds:.1f} s in this session, {shown}"
    elif result.stopped_by is not None:
        done = "the start of this session"
    else:
        done = "nothing left to do"
    if result.stopped_by is not None:
        print(checks.printable(
            f"stopped at {done}; checkpoint in {result.run_dir}; "
            f"go on with: jtrust resume {shlex.quote(result.run_dir)}"
        ))
        return exit_status(result.stopped_by)
    print(checks.printable(f"done: {done}; checkpoint in {result.run_dir}"))
    return 0
