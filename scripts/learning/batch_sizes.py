"""The table of what is learned with how many environments, at equal steps and at twice and more."""

from __future__ import annotations

import numpy as np

from jtrust import statistics
from scripts.learning import tables
from scripts.learning.suite import SUITE, parse_arm

Runs = dict[str, dict[str, list[dict]]]
# Beside 64 environments after so many steps stand more of them after a multiple.
MULTIPLES = {1024: 2, 4096: 4}
# Millions of steps of the rows at equal steps.
EQUAL = (1, 2, 3, 4, 5, 6, 8, 11, 14, 17, 26)


def environments_of(arm: str) -> int:
    """Of an arm of jtrust's whose settings are at most the number of environments."""
    return parse_arm(arm)[1].get("num_envs", 64)


def is_plain(arm: str) -> bool:
    """Whether an arm has the defaults, but for the number of environments."""
    return set(parse_arm(arm)[1]) <= {"num_envs"}


def as_markdown(data: Runs, defaults: Runs) -> str:
    """Every task with runs of its own in `data`, beside those of 64 environments and of brax."""
    lines = [
        "# What is learned with how many environments", "",
        "Written by `python scripts/learning_curves.py report --data` with the folder of the runs.",
        "Interquartile mean over seeds of the mean return of 32 episodes of the policy's mode; in",
        "brackets from 5 seeds its 95 % interval, of fewer the range; the number of seeds; `-`",
        "where none has been run so far. ant-gpu and humanoid-gpu (positional) ran on an H200.", "",
    ]
    lines += _over_tasks(by_count(data, defaults))
    for task, arms in data.items():
        every = {arm: runs for arm, runs in defaults.get(task, {}).items() if is_plain(arm)} | arms
        names = sorted(
            (arm for arm in every if is_plain(arm) and parse_arm(arm)[0] in ("trpo", "ppo")),
            key=lambda arm: (parse_arm(arm)[0], environments_of(arm)),
        )
        names += ["brax-ppo"] * ("brax-ppo" in every)
        shown = [arm if ":" in arm or arm == "brax-ppo" else f"{arm}, 64" for arm in names]
        shown = [arm.replace(":num_envs=", ", ") for arm in shown]
        lines += [
            f"## {task}", "", "| steps | " + " | ".join(shown) + " |",
            "| --- |" + " --- |" * len(names),
        ]
        for millions in EQUAL:
            cells = [_cell(task, every[arm], millions * 1e6) for arm in names]
            if any(cell != "-" for cell in cells):
                lines.append(f"| {millions} M | " + " | ".join(cells) + " |")
        lines += ["", *_at_multiples(task, every), ""]
        if rows := _other_settings(task, every):
            lines += [
                "Other settings, beside the defaults with as many environments and steps:", "",
                "| setting | million steps | return | defaults |", "| --- | --- | --- | --- |",
                *rows, "",
            ]
    return "\n".join(lines)


def by_count(data: Runs, defaults: Runs) -> dict[str, dict[tuple[str, int], list[dict]]]:
    """Runs with the defaults of every task in `data`, by algorithm and number of environments."""
    found = {}
    for task, arms in data.items():
        every = defaults.get(task, {}) | arms
        found[task] = {
            (parse_arm(arm)[0], environments_of(arm)): every[arm]
            for arm in sorted(every, key=environments_of)
            if parse_arm(arm)[0] in ("trpo", "ppo") and is_plain(arm)
        }
    return found


def _over_tasks(data: dict[str, dict[tuple[str, int], list[dict]]]) -> list[str]:
    """All tasks together, normalised: more environments after a multiple of the steps of 64."""
    lines = [
        "## All tasks", "",
        "Normalised returns (0: random actions, 1: learned), the interquartile mean over all runs",
        "of all tasks; each task to the last step that both have.", "",
        "| | 64 | more | difference | tasks |", "| --- | --- | --- | --- | --- |",
    ]
    for name in ("trpo", "ppo"):
        for count, times in MULTIPLES.items():
            few, many = {}, {}
            for task, arms in data.items():
                if {(name, 64), (name, count)} <= arms.keys():
                    some, base = arms[name, count], arms[name, 64]
                    steps = _common_steps(some, base, times)
                    few[task], many[task] = (
                        tables.normalized(SUITE[task], tables.values_at(runs, "step", at))
                        for runs, at in ((base, steps), (some, steps * times))
                    )
            if few:
                a, b = (statistics.interquartile_mean(x) for x in (few, many))
                lines.append(
                    f"| {name}, {count} at {times} times the steps | {a:.2f} | {b:.2f} "
                    f"| {b - a:+.2f} | {len(few)} |"
                )
    return [*lines, ""]


def _common_steps(more: list[dict], few: list[dict], times: int) -> float:
    """How many steps of 64 environments more of them have run a multiple of."""
    return min(tables.ends(more, "step") / times, tables.ends(few, "step"))


def _at_multiples(task: str, arms: dict[str, list[dict]]) -> list[str]:
    lines = []
    for arm, runs in arms.items():
        count, base = environments_of(arm) if is_plain(arm) else 64, parse_arm(arm)[0]
        if count not in MULTIPLES or base not in arms:
            continue
        times = MULTIPLES[count]
        steps = _common_steps(runs, arms[base], times)
        ours, theirs = (_cell(task, arms[name], at) for name, at in (
            (arm, steps * times), (base, steps)
        ))
        lines.append(
            f"- {base}: {count} environments after {steps * times / 1e6:.1f} million steps {ours}; "
            f"64 after {steps / 1e6:.1f} million {theirs}"
        )
    return lines


def _other_settings(task: str, arms: dict[str, list[dict]]) -> list[str]:
    """Rows of what has more settings than the number of environments, at its last step."""
    rows = []
    for arm, runs in arms.items():
        if is_plain(arm):
            continue
        (base, settings), steps = parse_arm(arm), tables.ends(runs, "step")
        count = settings.get("num_envs", 64)
        plain = arms.get(base if count == 64 else f"{base}:num_envs={count}")
        beside = _cell(task, plain, steps) if plain else "-"
        rows.append(f"| {arm} | {steps / 1e6:.1f} | {_cell(task, runs, steps)} | {beside} |")
    return rows


def _cell(task: str, runs: list[dict], step: float) -> str:
    # An iteration or two short of a round number is as good as there.
    reached = [run for run in runs if run["evaluations"]["step"][-1] >= 0.96 * step]
    values = tables.values_at(reached, "step", step) if reached else []
    return tables.summary(task, values) if values and not np.isnan(values).any() else "-"
