"""`jtrust sweep ENV`."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Sequence
from typing import Annotated, Any

from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes

from jtrust import checks
from jtrust.cli.lists import Range, lists_of, one_value_each, values_of
from jtrust.cli.options import EnvironmentOptions
from jtrust.cli.parsing import parse
from jtrust.paths import user_path


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepOptions(EnvironmentOptions):
    """Trains many runs as one program: seeds, and every setting that is given several values."""

    algorithm: tuple[str, ...] = ("trpo",)  # type: ignore[assignment]
    """trpo, npg, ppo, ppo-kl or trpl, or several; decides which settings there are."""
    num_envs: tuple[str, ...] = ()  # type: ignore[assignment]
    """Environments of each run; by default 64 on CPUs, 4096 on accelerators. Several values make
    several programs."""
    unroll_length: tuple[str, ...] = ()  # type: ignore[assignment]
    """Steps of each environment per iteration; 64."""
    action_bins: tuple[str, ...] = ()  # type: ignore[assignment]
    """Cut each action dimension into this many values."""
    seeds: int | None = None
    """How many seeds of each setting; by default 8, in a search 3."""
    seed: int = 0
    """The first of them."""
    zip: Annotated[bool, FlagCreatePairsOff] = False
    """Take lists side by side: the first value of each, the second, ..."""
    grid: Annotated[bool, FlagCreatePairsOff] = False
    """Take all combinations of lists, as by default."""
    steps: int = 1_000_000
    """Environment steps of each run; rounded up to whole iterations."""
    run_dir: str | None = None
    """Where to keep the sweep; by default checkpoints/<suite>-<name>-<algorithm>-sweep."""
    at_once: int | None = None
    """How many runs share the program at a time; by default as many as fit into memory."""
    devices: int | None = None
    """Over how many devices runs are spread; by default all, and on a CPU one per core."""
    checkpoint_every: int | None = None
    """Iterations between checkpoints of each run; by default a tenth of the run."""
    keep_checkpoints: int = 0
    """How many of the newest checkpoints of each run to keep; 0 keeps all."""
    evaluate_every: int | None = None
    """Iterations from one evaluation of each policy to the next; by default none."""
    keep_best: bool = False
    """Also keep the checkpoint of each run's best evaluation."""
    stop_at: float | None = None
    """End a run once an evaluation's mean return is at least this."""
    tensorboard: bool = False
    """Also write TensorBoard event files into each run's directory."""
    wandb: bool = False
    """Also send metrics to Weights & Biases."""
    mlflow: bool = False
    """Also send metrics to MLflow."""
    search: int | None = None
    """Search this many settings, in the ranges that are given as LOW:HIGH or LOW:HIGH:log."""
    metric: str = "return"
    """By which runs are compared: return, evaluation, or a name in metrics.jsonl."""
    prune: bool = True
    """In a search, end settings that fall behind."""
    json: Annotated[bool, FlagCreatePairsOff] = False
    """Print one JSON object on standard output and nothing else there."""
    compilation_cache: str | None = None
    """Directory for compiled programs, or none; by default the user's cache directory."""

    def __post_init__(self):
        if self.zip and self.grid:
            raise checks.BadArgument("zip", True, "--grid says the contrary")


# Several values of these are several programs.
_NUMBERS = ("num_envs", "unroll_length", "action_bins")


def run(args: Sequence[str]) -> int:
    from jtrust.algorithms import ALGORITHMS

    one_value_each(args, SweepOptions, ("algorithm", "env_option", *_NUMBERS))
    names = _algorithms(args)
    for name in names:
        checks.one_of("algorithm", name, ALGORITHMS)
    kind = dataclasses.make_dataclass("Sweep", [
        ("options", Annotated[SweepOptions, OmitArgPrefixes]),
        ("settings", Annotated[lists_of(names), OmitArgPrefixes]),
    ])
    parsed = parse(kind, "sweep", args)
    options = parsed.options
    settings = values_of(parsed.settings, names)
    settings |= {
        name: [checks.text_as_number(name, text, int) for text in getattr(options, name)]
        for name in _NUMBERS if getattr(options, name)
    }
    if options.run_dir is not None:
        user_path("run_dir", options.run_dir)
    algorithms = [ALGORITHMS[name]() for name in dict.fromkeys(names)]
    if options.search is not None:
        return _search(options, algorithms, settings)
    if not options.prune:
        raise checks.BadArgument("prune", False, "is for a search; say --search N with it")
    for name, values in settings.items():
        for value in values:
            if isinstance(value, Range):
                raise checks.BadArgument(name, str(value), "is a range; say --search N with it")
    return finish(_train(options, algorithms, settings), options)


def _algorithms(args: Sequence[str]) -> list[str]:
    """The values of `--algorithm`, which decide what other settings there are."""
    found: list[str] = []
    for i, argument in enumerate(args):
        if argument.startswith("--algorithm="):
            found.append(argument.partition("=")[2])
        if argument == "--algorithm":
            for value in args[i + 1:]:
                if value.startswith("--"):
                    break
                found.append(value)
    return found or ["trpo"]


def _prepared(options: SweepOptions, seeds: int) -> Any:
    """Sets JAX up, and makes the environment."""
    from jtrust.environments import make_env
    from jtrust.runs.compilation_cache import use_compilation_cache
    from jtrust.runs.cpu_devices import use_cores_for_runs
    from jtrust.startup import collector_paused

    use_compilation_cache(options.compilation_cache)
    use_cores_for_runs(seeds, options.devices)
    given = options.of_environment()
    with collector_paused(), options.told_as_options():
        return make_env(options.env, **given)


def _train(options: SweepOptions, algorithms: list[Any], settings: dict[str, Any]) -> Any:
    from jtrust.sweeps.progress import make_sweep_progress
    from jtrust.sweeps.sweep import train_many

    seeds = 8 if options.seeds is None else options.seeds
    return train_many(
        _prepared(options, seeds), algorithms, seeds=seeds, seed=options.seed,
        total_steps=options.steps, run_dir=options.run_dir, zip=options.zip,
        at_once=options.at_once, devices=options.devices,
        checkpoint_every=options.checkpoint_every, keep_checkpoints=options.keep_checkpoints,
        tensorboard=options.tensorboard, wandb=options.wandb, mlflow=options.mlflow,
        evaluate_every=options.evaluate_every, keep_best=options.keep_best,
        stop_at=options.stop_at, metric=options.metric, make_progress=make_sweep_progress,
        default_run_dir=options.run_dir is None, hand_on_signals=False, **settings,
    )


def _search(options: Any, algorithms: list[Any], settings: dict[str, Any]) -> int:
    from jtrust.sweeps.progress import make_sweep_progress
    from jtrust.sweeps.search import search

    checks.installed("search", options.search, "optuna")
    for name in ("keep_best", "stop_at", "tensorboard", "wandb", "mlflow", "zip"):
        if (value := getattr(options, name)) not in (None, False):
            raise checks.BadArgument(name, value, "is not for a search; leave it out")
    if len(algorithms) > 1:
        raise checks.BadArgument(
            "algorithm", " ".join(a.name for a in algorithms), "a search is of one algorithm"
        )
    ranges: dict[str, Any] = {}
    fixed: dict[str, Any] = {}
    for name, values in settings.items():
        if len(values) > 1:
            raise checks.BadArgument(
                name, " ".join(map(str, values)), "in a search must be a range, such as 0.01:0.1, "
                "or one value"
            )
        (ranges if isinstance(values[0], Range) else fixed)[name] = values[0]
    seeds = 3 if options.seeds is None else options.seeds
    found = search(
        _prepared(options, seeds * options.search), algorithms[0], trials=options.search,
        ranges={name: (r.low, r.high, r.log) for name, r in ranges.items()},
        metric=options.metric, prune=options.prune, seeds=seeds, seed=options.seed,
        total_steps=options.steps, run_dir=options.run_dir, at_once=options.at_once,
        devices=options.devices, checkpoint_every=options.checkpoint_every,
        keep_checkpoints=options.keep_checkpoints, evaluate_every=options.evaluate_every,
        make_progress=make_sweep_progress, default_run_dir=options.run_dir is None,
        hand_on_signals=False, **fixed,
    )
    return finish_search(found, options.json)


def finish(found: Any, options: Any) -> int:
    """Tells what a sweep came to; its exit status."""
    from jtrust.runs.signals import exit_status

    stopped = found.stopped_by is not None
    if not stopped or any(len(m.metrics) for m in found.members):
        table = found.compare(getattr(options, "metric", "return"))
        print(json.dumps(table.as_json()) if options.json else table.as_text())
    said = sys.stderr if options.json else sys.stdout
    if stopped:
        print(checks.printable(
            f"stopped; checkpoints in {found.run_dir}; "
            f"go on with: jtrust resume {shlex.quote(found.run_dir)}"
        ), file=said)
        return exit_status(found.stopped_by)
    print(checks.printable(f"done: {len(found.members)} runs in {found.run_dir}"), file=said)
    return 0


def finish_search(found: Any, as_json: bool) -> int:
    """Tells what a search came to; its exit status."""
    from jtrust.runs.signals import exit_status

    said = sys.stderr if as_json else sys.stdout
    if found.stopped_by is not None:
        print(checks.printable(
            f"stopped after {found.finished} settings; "
            f"go on with: jtrust resume {shlex.quote(found.run_dir)}"
        ), file=said)
        return exit_status(found.stopped_by)
    print(json.dumps(found.as_json()) if as_json else found.as_text())
    return 0


