"""Trials of a search as runs: asked of Optuna, pruned, and the best compared with the defaults."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jtrust import checks
from jtrust.runs.result import columns
from jtrust.sweeps.comparison import last_value
from jtrust.sweeps.member_run import MemberRun
from jtrust.sweeps.members import Group, Member
from jtrust.sweeps.progress import SweepProgress
from jtrust.sweeps.queue import Keeper
from jtrust.sweeps.settings import Settings
from jtrust.sweeps.slots import Arrival

# How often a run is looked at for whether its setting has fallen behind.
LOOKS = 8
# Looks before any setting is pruned, and settings that must have come to their end by then.
_WARM_UP, _FULL_RUNS = 2, 4
# Seeds of the runs that compare the best with the defaults, which no trial has had.
FRESH_SEEDS = 1_000_000
BEHIND = "fell behind"

Ranges = Mapping[str, tuple[float, float, bool]]


class Study:
    """Optuna's study of a search, in the search's directory; its trials by their numbers.

    Args:
      path: of its database; None keeps nothing.
      ranges: by name: (low, high, whether by logarithm).
      defaults: what each has where nothing is said; the first trial, where they are in range.
      seed: of the sampler.
      prune: whether settings that fall behind are to end.
    """

    def __init__(
        self, path: Path | None, ranges: Ranges, defaults: Settings, seed: int, prune: bool
    ):
        import optuna
        from sqlalchemy.engine import URL

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._ranges, self._defaults = ranges, defaults
        storage = None if path is None else str(URL.create("sqlite", database=str(path)))
        pruner: Any = optuna.pruners.NopPruner()
        if prune:
            pruner = optuna.pruners.MedianPruner(_FULL_RUNS, _WARM_UP)
        self._optuna = optuna
        try:
            self._study = optuna.create_study(
                storage=storage, study_name="jtrust", direction="maximize", pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # of SQLAlchemy, alembic and Optuna
            said = checks.short(str(error).splitlines()[0])
            raise checks.BadArgument(
                "RUN_DIR", path, f"cannot be used as the search's database ({said})"
            ) from error
        # What it draws depends on what it knows, not on how often the search was stopped.
        known = len(self._study.trials)
        self.known = known
        self._study.sampler = optuna.samplers.TPESampler(
            seed=seed + known, constant_liar=True, n_startup_trials=8
        )
        within = all(
            defaults[name] is not None and low <= defaults[name] <= high
            for name, (low, high, _) in ranges.items()
        )
        if not known and within:
            self._study.enqueue_trial({name: defaults[name] for name in ranges})

    def unfinished(self) -> list[tuple[int, Settings]]:
        """Trials that a search was stopped in, with their settings."""
        running = self._optuna.trial.TrialState.RUNNING
        return [
            (t.number, dict(t.params)) for t in self._study.trials
            if t.state == running and set(t.params) == set(self._ranges)
        ]

    @property
    def asked(self) -> int:
        """Trials that are, or were, begun."""
        waiting = self._optuna.trial.TrialState.WAITING
        return sum(
            t.state != waiting and set(t.params) == set(self._ranges) for t in self._study.trials
        )

    def ask(self) -> tuple[int, Settings]:
        """The next trial: its number and settings."""
        trial = self._study.ask()
        for name, (low, high, log) in self._ranges.items():
            trial.suggest_float(name, low, high, log=log)
        return trial.number, dict(trial.params)

    def fell_behind(self, number: int, look: int, value: float) -> bool:
        """Tells how a trial does at a look; whether it is to end."""
        trial = self._optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
        trial.report(value, look)
        return trial.should_prune()

    def tell(self, number: int, value: float | None, pruned: bool) -> None:
        """A trial has ended: with a value, behind, or failed."""
        states = self._optuna.trial.TrialState
        if pruned:
            self._study.tell(number, state=states.PRUNED)
        elif value is None:
            self._study.tell(number, state=states.FAIL)
        else:
            self._study.tell(number, value)

    def is_default(self, settings: Settings) -> bool:
        """Whether these are the defaults."""
        return all(settings[name] == self._defaults[name] for name in self._ranges)

    def finished(self) -> list[dict[str, Any]]:
        """{"trial", "settings", "value", "state"} of those that have ended, best first."""
        found = [
            {"trial": t.number, "settings": dict(t.params), "state": t.state.name.lower(),
             "value": t.value if t.state == self._optuna.trial.TrialState.COMPLETE else None}
            for t in self._study.trials if t.state.is_finished()
        ]
        return sorted(found, key=lambda t: np.inf if t["value"] is None else -t["value"])


class Trials:
    """Where the runs of a search come from: trials, then the best beside the defaults.

    Args:
      study: what is tried next.
      count: how many trials.
      seeds: of each trial.
      confirm: how many fresh seeds of the best and of the defaults.
      metric: name in metrics.jsonl, as `last_value` takes it.
      make: (name, seed, settings) -> a member, entered in the search's record.
      group: of all of them.
      keeper: begins them.
      progress: shows it.
      left: told of each run that has ended.
      ended: {name: why} of runs that ended before their last iteration.
      give_up: told of a run that cannot begin, and why.
    """

    def __init__(
        self, study: Study, count: int, seeds: Sequence[int], confirm: int, metric: str,
        make: Callable[[str, int, Settings], Member], group: Group, keeper: Keeper,
        progress: SweepProgress, left: Callable[[MemberRun], None], ended: Mapping[str, str],
        give_up: Callable[[str, str], None],
    ):
        self._give_up = give_up
        self._pruned: set[int] = set()
        self._ended = dict(ended)
        self._study, self._count, self._seeds, self._confirm = study, count, seeds, confirm
        self._metric, self._make, self._group = metric, make, group
        self._keeper, self._progress, self._left = keeper, progress, left
        self._waiting: collections.deque[Member] = collections.deque()
        self._trial_of: dict[str, int] = {}
        self._values: dict[int, dict[int, float | None]] = {}
        self._looks: dict[tuple[int, int], dict[int, float]] = {}
        self._runs: dict[int, list[MemberRun]] = {}
        self._confirming = False
        for number, settings in study.unfinished():
            self._begin(number, settings)

    @property
    def more(self) -> bool:
        if self._waiting or self._study.asked < self._count:
            return True
        return not self._confirming and not self._values

    def arrivals(self, free: int) -> Sequence[Arrival]:
        found: list[Arrival] = []
        while True:
            while len(self._waiting) < free and self._study.asked < self._count:
                self._begin(*self._study.ask())
            if not self._waiting and not self._values and not self._confirming:
                self._compare()
            while self._waiting and len(found) < free:
                found += self._prepared(self._waiting.popleft())
            if found or not self.more:  # those that are stored make room for others
                return found

    def _prepared(self, member: Member) -> list[Arrival]:
        """A run that is to have a slot; none where it has come to its end, or cannot begin."""
        number = self._trial_of.get(member.name)
        why = self._ended.get(member.name)
        if why is None and number in self._pruned:
            why = BEHIND  # a seed of the same setting ended so
        if why is not None or self._keeper.is_finished(member):
            self._take_stored(member, why)
            return []
        try:
            return [self._keeper.prepare(member, self._group)]
        except checks.BadArgument as error:
            why = self._ended[member.name] = error.as_option()
            self._progress.note(f"{member.name}: {why}")
            self._give_up(member.name, why)
            self._take_stored(member, why)
            return []

    def begun(self, arrivals: Sequence[Arrival], first: dict[str, np.ndarray]) -> None:
        self._keeper.begin(arrivals, first)
        for arrival in arrivals:
            run = arrival.run
            number = self._trial_of.get(run.member.name)
            if number is None:
                continue
            self._runs.setdefault(number, []).append(run)
            if run.done:  # its looks before the search was stopped
                rows = self._keeper.rows(run.member)
                for iteration in range(self._every(run), run.done + 1, self._every(run)):
                    self._see(run, iteration, rows[:iteration])

    def told(self, run: MemberRun, iteration: int) -> None:
        self._progress.update(run.member.name, run.rows[-1], run.total)
        number = self._trial_of.get(run.member.name)
        if number is None or iteration % self._every(run) or iteration == run.total:
            return
        rows = run.rows
        if len(rows) < self._every(run):
            rows = self._keeper.rows(run.member)
        self._see(run, iteration, rows)
        seen = self._looks.get((number, iteration // self._every(run)), {})
        if len(seen) == len(self._seeds) and self._study.fell_behind(
            number, iteration // self._every(run), statistics.fmean(seen.values())
        ):
            self._end(number)

    def left(self, run: MemberRun) -> None:
        self._progress.left(run.member.name)
        self._left(run)
        number = self._trial_of.get(run.member.name)
        if number is not None and (run.ended or run.finished):
            # Those before a search was stopped count as well.
            rows = self._keeper.rows(run.member) if run.done else run.rows
            value = None if run.ended else last_value(columns(rows), self._metric)
            if run.ended and run.ended != BEHIND:
                self._end(number, "another seed of its setting failed")
            self._note(number, run.member.seed, value)

    def _every(self, run: MemberRun) -> int:
        return max(run.total // LOOKS, 1)

    def _see(self, run: MemberRun, iteration: int, rows: Sequence[Any]) -> None:
        """What a run's metric is at a look."""
        every = self._every(run)
        value = last_value(columns(rows[-every:]), self._metric)
        if value is not None:
            place = (self._trial_of[run.member.name], iteration // every)
            self._looks.setdefault(place, {})[run.member.seed] = value

    def _end(self, number: int, why: str = BEHIND) -> None:
        """Ends all runs of a trial."""
        if why == BEHIND:
            self._pruned.add(number)
        for other in self._runs.get(number, []):
            other.stop(why)

    def _begin(self, number: int, settings: Settings) -> None:
        self._values[number] = {}
        if any(self._ended.get(f"trial={number},seed={seed}") == BEHIND for seed in self._seeds):
            self._pruned.add(number)
        for seed in self._seeds:
            member = self._make(f"trial={number},seed={seed}", seed, settings)
            self._trial_of[member.name] = number
            self._waiting.append(member)

    def _note(self, number: int, seed: int, value: float | None) -> None:
        """What one seed of a trial came to; with the last of them the trial ends."""
        found = self._values[number]
        found[seed] = value
        if len(found) < len(self._seeds):
            return
        del self._values[number]
        values = [v for v in found.values() if v is not None]
        whole, pruned = len(values) == len(found), number in self._pruned
        self._study.tell(number, statistics.fmean(values) if whole else None, pruned and not whole)
        shown = f"{statistics.fmean(values):.4g}" if whole else BEHIND if pruned else "failed"
        self._progress.note(f"trial {number}: {shown}")

    def _take_stored(self, member: Member, why: str | None) -> None:
        """A run that came to its end, one way or the other, before the search was stopped."""
        self._progress.left(member.name)
        number = self._trial_of.get(member.name)
        if number is not None:
            rows = [] if why else self._keeper.rows(member)
            self._note(number, member.seed, last_value(columns(rows), self._metric))

    def _compare(self) -> None:
        """The best trial and the defaults, with seeds that neither has had."""
        self._confirming = True
        best = next((t for t in self._study.finished() if t["value"] is not None), None)
        if best is None or not self._confirm or self._study.is_default(best["settings"]):
            return
        start = max(FRESH_SEEDS, max(self._seeds) + 1)
        for name, settings in (("best", best["settings"]), ("defaults", {})):
            for seed in range(start, start + self._confirm):
                self._waiting.append(self._make(f"{name},seed={seed}", seed, settings))
