"""The table of what is learned with how many environments, at equal steps and at twice and more."""

from __future__ import annotations

import numpy as np

from scripts.learning import tables
from scripts.learning.suite import parse_arm

Runs = dict[str, dict[str, list[dict]]]
# Beside 64 environments after so many steps stand more of them after a multiple.
MULTIPLES = {1024: 2, 4096: 4}
# Millions of steps of the rows at equal steps.
EQUAL = (1, 2, 3, 4, 5, 6, 8)


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
        "where none has been run so far.", "",
    ]
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
    return "\n".join(lines)


def _at_multiples(task: str, arms: dict[str, list[dict]]) -> list[str]:
    lines = []
    for arm, runs in arms.items():
        count, base = environments_of(arm) if is_plain(arm) else 64, parse_arm(arm)[0]
        if count not in MULTIPLES or base not in arms:
            continue
        times = MULTIPLES[count]
        # Of what both have: as many steps of 64 as more of them have run multiples of.
        steps = min(tables.ends(runs, "step") / times, tables.ends(arms[base], "step"))
        ours, theirs = (_cell(task, arms[name], at) for name, at in (
            (arm, steps * times), (base, steps)
        ))
        lines.append(
            f"- {base}: {count} environments after {steps * times / 1e6:.1f} million steps {ours}; "
            f"64 after {steps / 1e6:.1f} million {theirs}"
        )
    return lines


def _cell(task: str, runs: list[dict], step: float) -> str:
    # An iteration or two short of a round number is as good as there.
    reached = [run for run in runs if run["evaluations"]["step"][-1] >= 0.96 * step]
    values = tables.values_at(reached, "step", step) if reached else []
    return tables.summary(task, values) if values and not np.isnan(values).any() else "-"
