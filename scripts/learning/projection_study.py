"""Trust region projection layers beside TRPO and PPO: tables.md in docs/evidence/projections/.

    python -m scripts.learning.projection_study          # trains what is not there yet, then all
    python -m scripts.learning.projection_study --page   # tables and figure of what there is

All seeds of an arm are one program (`scripts/learning/together.py`). TRPO and PPO are those of
docs/evidence/learning, which are longer; a few short runs of them, of which the KL of the state
that moved most is kept, are in docs/evidence/projections/others.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

from jtrust import statistics
from scripts import learning_curves
from scripts.learning.tables import ends, load_all, number, summary, values_at

ROOT = Path(__file__).resolve().parents[2]
PAGES, KEPT = ROOT / "docs/evidence/projections", ROOT / "docs/evidence/learning"
LARGE = ":num_envs=4096"
# (folder, task, arm, share of the task's steps, seeds), in the order in which they are trained.
RUNS = (
    ("runs", "hopper", "trpl", 0.4, 5), ("runs", "walker2d", "trpl", 0.4, 5),
    ("others", "hopper", "trpo", 0.06, 3), ("others", "hopper", "ppo", 0.06, 3),
    ("runs", "hopper", "trpl:mean_bound=0.2,cov_bound=0.01", 0.4, 5),
    ("large", "hopper", f"trpl{LARGE}", 1.6, 3),
    ("runs", "hopper", "ppo:clip=1.0", 0.4, 5),
    ("runs", "hopper", "trpl:clip=0.2", 0.4, 5), ("runs", "walker2d", "trpl:clip=0.2", 0.4, 5),
    ("runs", "hopper", "trpl:projection=w2", 0.4, 5),
    ("runs", "hopper", "trpl:projection=frobenius", 0.4, 5),
)
_COLOURS = {
    "trpo": "#0072B2", "ppo": "#D55E00", "trpl": "#009E73", "trpl:projection=w2": "#CC79A7",
    "ppo:clip=1.0": "#999999", "trpl:clip=0.2": "#000000", "trpl:projection=frobenius": "#E69F00",
    "trpl:mean_bound=0.2,cov_bound=0.01": "#56B4E9",
}
Runs = dict[str, dict[str, list[dict[str, Any]]]]


def train(seconds: float) -> None:
    """What is not there yet, one arm after another, each for so long at most."""
    for folder, task, arm, share, seeds in RUNS:
        path = learning_curves.file_of(PAGES / folder, task, arm)
        if path.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            out = Path(temporary) / "run.json"
            command = [sys.executable, "-m", "scripts.learning.together", task, arm, "0",
                       str(seeds), str(share), str(out)]
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(command, cwd=ROOT, check=True, timeout=seconds)
            if out.exists():  # all of it, or up to the last evaluation in time
                keep(folder, task, arm, json.loads(out.read_text()))


def keep(folder: str, task: str, arm: str, found: dict[str, Any]) -> None:
    """Adds runs that `together` made to the file of their arm."""
    learning_curves.keep(task, arm, found, sys.executable, argparse.Namespace(
        data=PAGES / folder, together=True, cores="one"
    ))


def beside(data: Runs) -> Runs:
    """The same with the kept runs of TRPO and PPO on their tasks, with as many environments."""
    kept = load_all(KEPT / "runs")
    for task, arms in load_all(KEPT / "batch-size/runs").items():
        kept[task] = arms | kept.get(task, {})
    found: Runs = {}
    for task, arms in data.items():
        size = LARGE if all(arm.endswith(LARGE) for arm in arms) else ""
        others = {f"trpo{size}", f"ppo{size}"}
        found[task] = {arm: of for arm, of in kept.get(task, {}).items() if arm in others} | arms
    return found


def returns(data: Runs) -> list[str]:
    """Returns at the steps that all arms of a task have."""
    lines = ["| task | steps | arm | return | worst seed |", "| --- | --- | --- | --- | --- |"]
    for task, arms in beside(data).items():
        step = min(ends(runs, "step") for runs in arms.values())
        for arm, runs in arms.items():
            values = values_at(runs, "step", step)
            lines.append(f"| {task} | {step:,.0f} | {arm} | {summary(task, values)} | "
                         f"{number(min(values))} |")
    return lines


def limits(data: Runs, others: Runs) -> list[str]:
    """What the state that moved most did, over all updates of all seeds."""
    lines = [
        "| task | arm | updates | largest KL of a state | mean KL | most of a limit | step taken | "
        "refused |", "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for task, arms in (*data.items(), *others.items()):
        for arm, runs in arms.items():
            of = lambda name, runs=runs: np.concatenate(  # noqa: E731
                [np.asarray(run["train"][name], float) for run in runs]
            )
            share = f"{of('of_limit').max():.6f}" if "of_limit" in runs[0]["train"] else "-"
            size = 64 * (4096 if arm.endswith(LARGE) else 64)
            updates = sum(run["train"]["step"][-1] for run in runs) // size
            lines.append(
                f"| {task} | {arm} | {updates:,} | {of('largest_kl_max').max():.3g} | "
                f"{of('kl').mean():.2g} | {share} | {of('step_scale').mean():.2f} | "
                f"{100 * (1 - of('accepted').mean()):.1f} % |"
            )
    return lines


def draw(data: Runs, others: Runs) -> None:
    """Returns over steps by task; the largest KL of a state over the updates on hopper."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    every = beside(data)
    figure, panels = plt.subplots(
        1, len(every) + 1, figsize=(3.4 * (len(every) + 1), 3), layout="constrained"
    )
    for panel, (task, arms) in zip(panels, every.items(), strict=False):
        right = min(ends(runs, "step") for runs in arms.values())
        grid = np.linspace(0, right, 40)
        for arm, runs in arms.items():
            curves = np.asarray([values_at(runs, "step", x) for x in grid])
            middle = [statistics.interquartile_mean({0: x}) for x in curves]
            panel.plot(grid / 1e6, middle, color=_COLOURS[arm], label=arm, lw=1.4)
            panel.fill_between(
                grid / 1e6, curves.min(1), curves.max(1), color=_COLOURS[arm], alpha=0.12, lw=0
            )
        panel.set(title=task, xlabel="environment steps, millions", ylabel="return")
    panel = panels[-1]
    for arm, runs in (others.get("hopper", {}) | data.get("hopper", {})).items():
        for i, run in enumerate(runs):
            curve = run["train"]
            panel.plot(np.asarray(curve["step"]) / 1e6, curve["largest_kl_max"], lw=0.7,
                       color=_COLOURS[arm], label=arm if i == 0 else None)
    panel.set(title="hopper", xlabel="environment steps, millions", yscale="log",
              ylabel="largest KL of a state, nats", xlim=(0, 0.5))
    panel.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(PAGES / "returns.svg")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--page", action="store_true", help="only tables and figure")
    parser.add_argument("--seconds", type=float, default=1e6, help="of each arm, at most")
    given = parser.parse_args()
    if not given.page:
        train(given.seconds)
    data, others, large = (load_all(PAGES / name) for name in ("runs", "others", "large"))
    (PAGES / "tables.md").write_text("\n".join([
        "# Trust region projection layers", "",
        "Written by `python -m scripts.learning.projection_study`. 64 environments where no "
        "other number stands, defaults. Returns: 32 episodes of the policy's mode, interquartile "
        "mean over seeds, its 95 % interval, number of seeds. TRPO and PPO are those of "
        "[learning.md](../learning.md).", "", *returns(data), *returns(large)[2:], "",
        "Over all updates of all seeds; `most of a limit`: the largest share of its limit that a "
        "distance took in a state, 1 at most; `step taken`: the mean part of a move that was left "
        "after drawing back.", "", *limits(data, others), *limits(large, {})[2:], "",
        "![Returns, and the largest KL of a state](returns.svg)",
    ]) + "\n")
    draw(data, others)


if __name__ == "__main__":
    main()
