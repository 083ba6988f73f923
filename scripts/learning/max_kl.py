"""What the size of the trust region does: a sweep over `max_kl`, as a page and a figure.

    jtrust sweep hopper --backend spring --max-kl 0.001 0.0025 0.006 0.015 0.04 0.1 --seeds 5 \
        --steps 1000000 --run-dir DIR
    python -m scripts.learning.max_kl DIR      # keeps its curves, then writes page and figure
    python -m scripts.learning.max_kl          # page and figure of the curves that are kept

Writes docs/evidence/trust-region/max-kl.json, .md and .svg.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from jtrust import statistics
from jtrust.runs.rows import read_rows
from jtrust.sweeps.comparison import compare
from jtrust.sweeps.directory import SweepDirectory

PAGES = Path(__file__).resolve().parents[2] / "docs/evidence/trust-region"
POINTS = 50
COMMAND = (
    "jtrust sweep hopper --backend spring --max-kl 0.001 0.0025 0.006 0.015 0.04 0.1 --seeds 5 "
    "--steps 1000000"
)


def keep(sweep: str) -> None:
    """The curves of a sweep, thinned, and its table."""
    directory, record = SweepDirectory.open_sweep(sweep)
    curves: dict[str, list[dict[str, list]]] = {}
    for member in record.members:
        rows = read_rows(directory.path / member["name"] / "metrics.jsonl")
        groups = np.array_split(np.arange(len(rows)), POINTS)
        curves.setdefault(str(member["settings"]["max_kl"]), []).append({
            "step": [rows[g[-1]]["step"] for g in groups],
            "return": [_mean(rows, g, "episode/return") for g in groups],
            "kl": [_mean(rows, g, "policy/kl") for g in groups],
            "entropy": [_mean(rows, g, "policy/entropy") for g in groups],
        })
    found = {"curves": curves, "comparison": compare([sweep]).as_json()}
    (PAGES / "max-kl.json").write_text(json.dumps(found) + "\n")


def _mean(rows: list[dict[str, Any]], group: np.ndarray, key: str) -> float | None:
    values = [rows[i][key] for i in group if rows[i][key] is not None]
    return float(f"{np.mean(values):.5g}") if values else None


def page(found: dict[str, Any]) -> str:
    """The table, in Markdown."""
    lines = [
        f"`{COMMAND}`: return of the last tenth of the steps, interquartile mean over seeds.", "",
        "| `max_kl` | return | 95 % over seeds | least | most | KL of the last tenth |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for one in found["comparison"]["settings"]:
        max_kl = one["settings"]["max_kl"]
        curves = found["curves"][str(max_kl)]
        kl = np.mean([c["kl"][-POINTS // 10:] for c in curves])
        lines.append(
            f"| {max_kl:g} | {one['iqm']:.0f} | {one['low']:.0f} to {one['high']:.0f} | "
            f"{min(one['values']):.0f} | {max(one['values']):.0f} | {kl:.2g} |"
        )
    return "\n".join(lines) + "\n\n![Returns and entropies by max_kl](max-kl.svg)\n"


def figure(found: dict[str, Any], path: Path) -> None:
    """Returns and entropies over steps, one colour for each `max_kl`."""
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    colours = plt.get_cmap("viridis")(np.linspace(0.0, 0.9, len(found["curves"])))
    for (max_kl, curves), colour in zip(found["curves"].items(), colours, strict=True):
        steps = np.asarray(curves[0]["step"]) / 1e6
        for axis, key in zip(axes, ("return", "entropy"), strict=True):
            values = np.asarray([c[key] for c in curves], float)  # [seeds, points]
            middle = [statistics.interquartile_mean({"": v}) for v in values.T]
            axis.plot(steps, middle, color=colour, label=f"{float(max_kl):g}", lw=1.5)
            axis.fill_between(
                steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.12, lw=0
            )
    axes[0].set(xlabel="environment steps, millions", ylabel="return")
    axes[1].set(xlabel="environment steps, millions", ylabel="entropy, nats")
    axes[0].legend(title="max_kl", frameon=False, ncols=2)
    fig.savefig(path)
    plt.close(fig)


def main() -> None:
    if sys.argv[1:]:
        keep(sys.argv[1])
    found = json.loads((PAGES / "max-kl.json").read_text())
    (PAGES / "max-kl.md").write_text(page(found))
    figure(found, PAGES / "max-kl.svg")


if __name__ == "__main__":
    main()
