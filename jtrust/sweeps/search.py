"""`jtrust sweep --search`: Optuna over the numbers of an algorithm, trials as members."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, cast

import jax

from jtrust import checks, statistics
from jtrust.algorithms import ALGORITHMS, Algorithm
from jtrust.algorithms.defaults import SizeDependent
from jtrust.environments import describe, make_env
from jtrust.networks import NetworkConfig
from jtrust.paths import user_path
from jtrust.runs.config import RunConfig
from jtrust.runs.evaluation import Evaluations
from jtrust.runs.matching import check_random_keys
from jtrust.runs.metrics import Services
from jtrust.runs.result import columns
from jtrust.runs.run import default_checkpoint_every, step_count
from jtrust.runs.signals import StopRequest
from jtrust.startup import check_platform
from jtrust.sweeps.comparison import Comparison, compare_rows, metric_key
from jtrust.sweeps.directory import DATABASE, SweepDirectory, SweepRecord
from jtrust.sweeps.members import Group, Member, changes, varied
from jtrust.sweeps.reading import check_ranges, is_name
from jtrust.sweeps.search_result import SearchResult
from jtrust.sweeps.session import MakeProgress, SweepSession
from jtrust.sweeps.settings import Base, Settings, seeds_of
from jtrust.sweeps.sweep import check_metric, entry, group_entry, held, open_sweep, sweep_devices
from jtrust.sweeps.trials import Ranges, Study, Trials
from jtrust.training import Trainer

_SEEDS, _CONFIRM = 3, 8
# Trials are begun in so many rounds, so that later ones know of earlier ones.
_ROUNDS = 3


def search(
    env: Any,
    algorithm: Algorithm,
    *,
    trials: int,
    ranges: Ranges,
    metric: str = "return",
    prune: bool = True,
    seeds: int | Sequence[int] = _SEEDS,
    seed: int = 0,
    confirm: int = _CONFIRM,
    total_steps: int = 1_000_000,
    run_dir: str | os.PathLike | None = None,
    at_once: int | None = None,
    devices: Sequence[jax.Device] | int | None = None,
    checkpoint_every: int | None = None,
    keep_checkpoints: int = 0,
    evaluate_every: int | None = None,
    make_progress: MakeProgress | None = None,
    default_run_dir: bool = False,
    hand_on_signals: bool = True,
    **fixed: Any,
) -> SearchResult:
    """Searches settings by Optuna's TPE; then trains the best and the defaults with fresh seeds.

    Args:
      env: a name for `jtrust.make_env`, or an environment.
      algorithm: one of jtrust's.
      trials: how many settings are tried; the first has the defaults, where they are in range.
      ranges: {name: (low, high, whether by logarithm)} of numbers that the program takes as
        arguments.
      metric: as for `compare`; the mean over a trial's seeds is made as large as can be.
      prune: end trials that are below the median of the earlier ones at the same iteration.
      seeds: of each trial: how many, or which.
      confirm: fresh seeds of the best and of the defaults at the end; 0 for no comparison.
      at_once: how many runs share the program; by default a third of all trials.
      **fixed: settings of all trials, by name.
      seed, total_steps, run_dir, devices, checkpoint_every, keep_checkpoints, evaluate_every,
      make_progress, default_run_dir, hand_on_signals: as for `train_many`.

    Raises:
      BadArgument, OSError, KeyboardInterrupt: as `train_many`.
    """
    check_platform()
    checks.installed("search", trials, "optuna")
    trials = checks.whole_number("search", trials, maximum=100_000, example=24)
    checks.truth_value("prune", prune)
    if at_once is not None:
        at_once = checks.whole_number("at_once", at_once, example=8)
    if checkpoint_every is not None:
        checkpoint_every = checks.whole_number("checkpoint_every", checkpoint_every, example=50)
    confirm = checks.whole_number("confirm", confirm, minimum=0, maximum=1000)
    kept = run_dir is not None or default_run_dir
    total_steps = step_count("steps" if default_run_dir else "total_steps", total_steps)
    services = Services(keep_checkpoints, False, False, False).checked(kept)
    seed = checks.whole_number("seed", seed, minimum=0)
    chosen = seeds_of(seeds, seed)
    if run_dir is not None:
        run_dir = user_path("run_dir", run_dir)
    found = sweep_devices(devices)
    environment = make_env(env) if isinstance(env, str) else describe(env, type(env).__name__)
    given = _given(algorithm) | dict(fixed)
    base = Base(environment, {algorithm.name: type(algorithm)()}, {}, given)
    trainer = base.trainer({}, found[:1])
    _check_ranges(ranges, trainer)
    check_metric(metric, trainer, evaluate_every)
    _ends(base, ranges, found[:1])
    described = RunConfig.describe(
        trainer, seed=chosen[0], total_steps=total_steps,
        checkpoint_every=checkpoint_every or default_checkpoint_every(total_steps, trainer),
    )
    told = Evaluations(evaluate_every).checked(kept).as_json()
    config = dataclasses.replace(services.into(described), evaluation=told)
    config = config.signed() if kept else config
    said = {
        "trials": trials, "ranges": {k: list(v) for k, v in ranges.items()}, "prune": prune,
        "metric": metric_key(metric), "seeds": chosen, "confirm": confirm, "given": given,
        "seed": seed, "at_once": at_once,
    }
    record = SweepRecord(
        base=dataclasses.asdict(config), members=[], groups=[], search=said
    )
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory = open_sweep(run_dir, config, record, stack, "search") if kept else None
        return _Search(base, config, record, directory, found, stop, stack, make_progress).run()


def resume_search(
    run_dir: str | os.PathLike, *, devices: Sequence[jax.Device] | int | None = None,
    allow_code: bool = False, make_progress: MakeProgress | None = None,
    hand_on_signals: bool = True,
) -> SearchResult:
    """Goes on with a search: trials that were under way from their newest checkpoints.

    Args:
      run_dir: the search's directory.
      devices, allow_code, make_progress, hand_on_signals: as for `resume_many`.

    Raises:
      BadArgument, OSError, KeyboardInterrupt: as `resume_many`.
    """
    check_platform()
    found = sweep_devices(devices)
    checks.installed("search", str(run_dir), "optuna")
    with contextlib.ExitStack() as stack:
        stop = stack.enter_context(StopRequest(hand_on=hand_on_signals))
        directory, record = held(run_dir, stack)
        if not record.search:
            raise checks.BadArgument(
                "RUN_DIR", run_dir, "is a sweep's and no search's; go on with it by "
                "jtrust.resume_many"
            )
        if record.members and not (directory.path / DATABASE).is_file():
            raise checks.BadArgument(
                "RUN_DIR", run_dir, f"has lost its {DATABASE}, in which its trials are"
            )
        config = record.config({"changes": {}}, str(directory.path))
        check_random_keys(config)
        checks.one_of("algorithm", config.algorithm, ALGORITHMS)
        environment = config.make_environment(directory.path, allow_code)
        given = {
            k: tuple(v) if isinstance(v, list) else v for k, v in record.search["given"].items()
        }
        base = Base(environment, {config.algorithm: ALGORITHMS[config.algorithm]()}, {}, given)
        _check_ranges(record.search["ranges"], base.trainer({}, found[:1]))
        return _Search(base, config, record, directory, found, stop, stack, make_progress).run()


class _Search:
    """One call of `search` or `resume_search`."""

    def __init__(
        self, base: Base, config: RunConfig, record: SweepRecord,
        directory: SweepDirectory | None, devices: list[jax.Device], stop: StopRequest,
        stack: contextlib.ExitStack, make_progress: MakeProgress | None,
    ):
        self._base, self._config, self._record = base, config, record
        self._directory, self._devices = directory, devices
        self._said = record.search
        self._trainers: dict[str, Trainer] = {}
        default = self._trainer({})
        ranges = self._ranges
        ends = _ends(base, ranges, devices[:1])
        total = self._said["trials"] * len(self._said["seeds"]) + 2 * self._said["confirm"]
        at_once = self._said["at_once"]
        rounds = -(-self._said["trials"] // _ROUNDS) * len(self._said["seeds"])
        first = self._member("defaults", self._said["seed"], {})
        slots = record.groups[0]["slots"] if record.groups else None
        of_devices = record.groups[0]["devices"] if record.groups else None
        self._group = Group([first], varied([default, *ends]), slots, of_devices)
        if not record.groups:
            record.groups.append(group_entry(dataclasses.replace(self._group, members=[])))
        self._session = SweepSession(
            [self._group], [first], record, directory, devices, at_once, stop, stack, None,
            make_progress, expected=total, wanted=min(rounds, total),
        )

    @property
    def _ranges(self) -> dict[str, tuple[float, float, bool]]:
        return {k: cast(Any, tuple(v)) for k, v in self._said["ranges"].items()}

    def run(self) -> SearchResult:
        session, said = self._session, self._said
        defaults = {
            name: _default(self._trainer({}), name) for name in self._ranges
        }
        path = None if self._directory is None else self._directory.path / DATABASE
        study = Study(path, self._ranges, defaults, said["seed"], said["prune"])
        session.progress.note(
            f"{said['trials']} trials x {len(said['seeds'])} seeds, then "
            f"{said['confirm']} fresh seeds of the best and of the defaults; 1 program to compile"
        )
        source = Trials(
            study, said["trials"], said["seeds"], said["confirm"], said["metric"], self._enter,
            self._group, session.keeper, session.progress, session.left, self._record.ended,
            session.give_up,
        )
        session.train_from(source, 0, self._group)
        session.check_written()
        comparison, difference = self._compared()
        return SearchResult(
            self._config.env, self._config.env_options, self._config.total_steps,
            self._config.algorithm, said["given"], defaults, study.finished(),
            comparison, difference,
            None if self._directory is None else str(self._directory.path), session.stop.number,
        )

    def _trainer(self, settings: Settings) -> Trainer:
        key = repr(sorted(settings.items()))
        if key not in self._trainers:
            self._trainers[key] = self._base.trainer(settings, self._devices[:1])
        return self._trainers[key]

    def _member(self, name: str, seed: int, settings: Settings) -> Member:
        trainer = self._trainer(settings)
        config = RunConfig.describe(
            trainer, seed=seed, total_steps=self._config.total_steps,
            checkpoint_every=self._config.checkpoint_every,
            keep_checkpoints=self._config.keep_checkpoints, signature=self._config.signature,
            evaluation=self._config.evaluation,
        )
        which = name.partition(",")[0]
        if which in ("best", "defaults"):  # apart from the trial that had the same
            settings = {"which": which, **settings}
        return Member(name, seed, settings, trainer, config)

    def _enter(self, name: str, seed: int, settings: Settings) -> Member:
        """A member, entered in the record."""
        member = self._member(name, seed, settings)
        if not is_name(name) or any(
            one["name"] == name and one["changes"] != changes(self._config, member.config)
            for one in self._record.members
        ):
            raise checks.BadArgument(
                "RUN_DIR", name, f"is another run in sweep.json than {DATABASE} says"
            )
        if all(one["name"] != name for one in self._record.members):
            self._record.members.append(entry(self._config, member))
            self._record.groups[0]["members"].append(name)
            if self._directory is not None:
                self._directory.write_record(self._record)
        self._session.enter(member)
        return member

    def _compared(self) -> tuple[Comparison | None, tuple[float, float, float] | None]:
        """The best beside the defaults, where all runs of both have come to their end."""
        runs = []
        for member in self._session.members:
            if not member.name.startswith(("best,", "defaults,")):
                continue
            why = self._record.ended.get(member.name, "")
            if not why and not self._session.is_over(member):
                return None, None
            rows = [] if why else self._session.rows(member)
            runs.append((member.name, member.seed, member.settings, columns(rows), why))
        if not runs:
            return None, None
        found = compare_rows(runs, self._said["metric"])
        scores = {one.settings["which"]: one.values for one in found.settings}
        if not all(len(scores.get(name, [])) > 1 for name in ("best", "defaults")):
            return found, None
        ours, theirs = ({"": scores[name]} for name in ("best", "defaults"))

        def gain(a: Any, b: Any) -> float:
            return statistics.interquartile_mean(a) - statistics.interquartile_mean(b)

        return found, (gain(ours, theirs), *statistics.bootstrap_interval(gain, ours, theirs))


def _given(algorithm: Algorithm) -> Settings:
    """What an algorithm was told that is not its default, by name.

    Raises:
      BadArgument: one of a user's own, which could not be made again.
    """
    if ALGORITHMS.get(getattr(algorithm, "name", "")) is not type(algorithm):
        raise checks.BadArgument(
            "algorithm", algorithm, f"must be one of jtrust's own: {', '.join(ALGORITHMS)}"
        )
    found = {}
    for field in dataclasses.fields(algorithm):
        value = getattr(algorithm, field.name)
        if isinstance(value, SizeDependent):
            continue
        if isinstance(field.default, SizeDependent) or value != field.default:
            found[field.name] = value
    return found


def _check_ranges(ranges: Ranges, trainer: Trainer) -> None:
    """Raises `BadArgument` for ranges of what shapes the program, of nothing, or of what there is
    not."""
    check_ranges(dict(ranges))
    if not ranges:
        raise checks.BadArgument(
            "search", "without a range", "needs ranges, such as --max-kl 0.003:0.03:log"
        )
    shape = [f.name for f in dataclasses.fields(NetworkConfig)]
    shape += ["num_envs", "unroll_length", "action_bins"]
    fields = {f.name: f for f in dataclasses.fields(trainer.algorithm)}
    for name in ranges:
        shapes = name in shape or (name in fields and fields[name].metadata.get("static"))
        if shapes:
            raise checks.BadArgument(
                name, "a range", "shapes the program; search numbers alone, and give it one value"
            )
        if name in fields and _default(trainer, name) is None:
            raise checks.BadArgument(
                name, "a range", "is None by default, another program; give it one value"
            )
        if name not in fields:
            raise checks.BadArgument(
                name, "a range", f"{trainer.algorithm.name} has no such setting"
            )


def _ends(base: Base, ranges: Ranges, devices: Sequence[jax.Device]) -> list[Trainer]:
    """Trainers at the lowest and at the highest end of all ranges.

    Raises:
      BadArgument: an end that will not do.
    """
    return [
        base.trainer({name: r[i] for name, r in ranges.items()}, devices) for i in range(2)
    ]


def _default(trainer: Trainer, name: str) -> Any:
    """What a setting is where nothing is said of it."""
    value = getattr(trainer.algorithm, name)
    return float(value) if checks.is_number(value) else None


