#!/usr/bin/env python3
"""Evidence for what a trust region does, measured on runs: data and figures.

    python scripts/learning/trust_region_evidence.py [--env brax/hopper] [--backend spring]

One TRPO run is stopped at several places; there, on the batch that its next iteration would use:

    distance   the KL of steps of one and the same length in the parameters, along the natural
               gradient, along the gradient and along random directions
    model      the KL of multiples of TRPO's full step, beside what the quadratic model predicts,
               and the surrogate's gain there
    updates    TRPO, NPG, PPO with a clip and PPO with a penalty from the same policy on the same
               batch: the KL that they moved, its largest value over states, and the gain; PPO also
               without its limit

and from whole runs:

    toofar     returns with `max_kl` from 0.001 to 1
    normalizer the KL by which new statistics of observations move the policy when they are not
               folded into it, and the returns then
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

# From here, wherever this is called: modules of scripts/ are found by their whole names.
sys.path[0] = str(Path(__file__).resolve().parents[2])
import jtrust
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.surrogate import Surrogate
from jtrust.algorithms.trees import tree_add, tree_dot
from jtrust.training import Trainer
from jtrust.training.mesh import REPLICATED, STATE_SPEC, per_shard
from jtrust.training.random_keys import environment_keys
from jtrust.trust_region import conjugate_gradient
from scripts.learning.ablations import without

matplotlib.use("svg")
import matplotlib.pyplot as plt

PLACE = Path(__file__).resolve().parents[2] / "docs/evidence/trust-region"
STOPS = (8, 40, 120, 320)
LENGTHS = np.geomspace(0.003, 3.0, 13)
SCALES = np.geomspace(0.1, 10.0, 17)
LIMITS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
NO_LIMIT = 1e6
# Curves of whole runs are kept at this many points.
POINTS = 100
# Without a bonus for entropy: the surrogate alone is what is predicted and what is gained.
PLAIN = {"entropy_cost": 0.0}
FREE = PLAIN | {"max_kl": NO_LIMIT}
UPDATES = {
    "trpo": jtrust.TRPO(**PLAIN), "npg": jtrust.NPG(**PLAIN), "ppo": jtrust.PPO(**PLAIN),
    "ppo, no limit": jtrust.PPO(**FREE),
    "ppo, no limit, 10 times the step": jtrust.PPO(**FREE, learning_rate=3e-3),
    "ppo-kl": jtrust.PPOPenalty(**PLAIN),
    "ppo-kl, no limit, 10 times the step": jtrust.PPOPenalty(**FREE, learning_rate=3e-3),
}


def states_along_a_run(trainer: Trainer, seed: int, stops: list[int]) -> dict[int, Any]:
    """{iteration: training state} at these iterations."""
    iterate = jax.jit(trainer.iterate)
    state, found = trainer.init(jax.random.key(seed)), {}
    for i in range(1, max(stops) + 1):
        state, _ = iterate(state)
        if i in stops:
            found[i] = state
    return found


def next_batch(trainer: Trainer) -> Any:
    """state -> (the policy that the next iteration would improve, the batch to do it on)."""

    def shard(state: Any) -> tuple[Any, Batch]:
        keys = environment_keys(state, trainer.collection.envs_per_device)
        state, trajectory, _ = trainer.collection(state, keys)
        estimates = trainer.estimation(state, trajectory)
        state, batch, _ = trainer.preparation(state, trajectory, estimates, keys)
        return state.policy, batch

    return jax.jit(per_shard(shard, trainer.mesh, (STATE_SPEC,), REPLICATED))


class Looks:
    """What is looked at in one batch, as programs that are compiled once for all batches."""

    def __init__(self, trainer: Trainer):
        apply, damping = trainer.policy_network, trainer.algorithm.damping

        def surrogate(params, batch):
            return Surrogate(params, apply, batch, 0.0, None)

        @jax.jit
        def directions(params, batch):
            """(natural gradient, gradient, its model's curvature)."""
            at = surrogate(params, batch)
            gradient = at.gradient()
            natural, _ = conjugate_gradient(at.fisher(damping), gradient, 10)
            return natural, gradient, tree_dot(natural, at.fisher()(natural))

        @jax.jit
        def moved(params, batch, direction, length):
            return surrogate(params, batch).at(tree_add(params, direction, length))

        def update_by(algorithm):
            @jax.jit
            def run(params, batch):
                new, _, _ = algorithm.update(algorithm.init(params), params, apply, batch)
                at = surrogate(params, batch)
                each = at.old.kl_divergence(apply(new, at.observation))
                return at.at(new) | {"largest_kl": jnp.max(each)}

            return run

        self._max_kl = trainer.algorithm.max_kl
        self._directions, self._moved = directions, moved
        self._updates = {name: update_by(algorithm) for name, algorithm in UPDATES.items()}

    def distances(self, params: Any, batch: Batch) -> dict[str, list[float]]:
        """KL of steps of given lengths in the parameters, by direction."""
        natural, gradient, _ = self._directions(params, batch)
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(0), len(leaves))
        noise = tree.unflatten([
            jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)
        ])
        found = {}
        for name, direction in (("natural", natural), ("gradient", gradient), ("random", noise)):
            norm = float(jnp.sqrt(tree_dot(direction, direction)))
            found[name] = [
                float(self._moved(params, batch, direction, length / norm)["kl"])
                for length in LENGTHS
            ]
        return found

    def model(self, params: Any, batch: Batch) -> dict[str, Any]:
        """Real and predicted KL, and the gain, of multiples of TRPO's full step."""
        natural, gradient, curvature = self._directions(params, batch)
        length = float(jnp.sqrt(2 * self._max_kl / curvature))
        measured = [self._moved(params, batch, natural, scale * length) for scale in SCALES]
        linear = length * float(tree_dot(natural, gradient))
        return {
            "kl": [float(m["kl"]) for m in measured],
            "kl_predicted": [float(self._max_kl * s**2) for s in SCALES],
            "gain": [float(m["gain"]) for m in measured],
            "gain_predicted": [float(linear * s) for s in SCALES],
        }

    def updates(self, params: Any, batch: Batch) -> dict[str, dict[str, float]]:
        """What each algorithm makes of the same policy and batch."""
        found = {}
        for name, update in self._updates.items():
            measured = update(params, batch)
            found[name] = {key: float(measured[key]) for key in ("kl", "largest_kl", "gain")}
        return found


def whole_runs(trainer: Trainer, iterations: int, seeds: int) -> Any:
    """max_kl -> return, KL and drift along a run, for each seed; compiled once for all limits."""

    def scan(max_kl, key):
        algorithm = dataclasses.replace(trainer.algorithm, max_kl=max_kl)
        limited = dataclasses.replace(trainer, algorithm=algorithm)
        return jax.lax.scan(
            lambda s, _: limited.iterate(s), limited.init(key), length=iterations
        )[1]

    scan = jax.jit(jax.vmap(scan, (None, 0)))
    keys = jnp.stack([jax.random.key(seed) for seed in range(seeds)])

    def run(max_kl: float) -> list[dict[str, list[float]]]:
        metrics = jax.device_get(scan(max_kl, keys))
        return [thinned({name: x[seed] for name, x in metrics.items()}) for seed in range(seeds)]

    return run


def thinned(metrics: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Means, or the largest KL, of adjacent iterations; the first batch's drift is left out.

    Before it there are no statistics that a policy could have been learned with.
    """
    def points(key, of):
        groups = np.array_split(metrics[key][1:], min(POINTS, len(metrics[key]) - 1))
        return [float(f"{float(of(group)):.5g}") for group in groups]

    def mean(returns):  # before the first episode has ended there is none
        return np.nan if np.all(np.isnan(returns)) else np.nanmean(returns)

    return {
        "return": points("episode/return", mean), "kl": points("policy/kl", np.max),
        "drift_kl": points("observation/drift_kl", np.max),
    }


def measure(env: str, backend: str | None, iterations: int, seeds: int) -> dict[str, Any]:
    environment = jtrust.make_env(env, **({"backend": backend} if backend else {}))

    trainer = jtrust.make_trainer(environment, jtrust.TRPO(**PLAIN), devices=1)
    found: dict[str, Any] = {
        "env": env, "backend": backend, "iterations": iterations,
        "lengths": LENGTHS.tolist(), "scales": SCALES.tolist(), "stops": {},
        "steps_per_iteration": trainer.steps_per_iteration,
    }
    gather, looks = next_batch(trainer), Looks(trainer)
    stops = [i for i in STOPS if i <= iterations]
    for iteration, state in states_along_a_run(trainer, 0, stops).items():
        params, batch = gather(state)
        found["stops"][iteration] = {
            "distance": looks.distances(params, batch), "model": looks.model(params, batch),
            "updates": looks.updates(params, batch),
        }
        print(f"iteration {iteration}: looked at", flush=True)
    folded, not_folded = (
        whole_runs(t, iterations, seeds) for t in (trainer, without(trainer, "fold"))
    )
    runs = {}
    for limit in LIMITS:
        runs[limit] = folded(limit)
        ends = [run["return"][-1] for run in runs[limit]]
        print(f"max_kl {limit}: {ends}", flush=True)
    found["toofar"] = {str(limit): [run["return"] for run in some] for limit, some in runs.items()}
    default = trainer.algorithm.max_kl
    found["normalizer"] = {"folded": runs[default], "not folded": not_folded(default)}
    return found


def draw(found: dict[str, Any], place: Path) -> None:
    plt.rcParams["svg.hashsalt"] = "jtrust"
    stops = found["stops"]
    shades = plt.get_cmap("viridis")(np.linspace(0, 0.85, len(stops)))

    figure, panels = plt.subplots(1, 3, figsize=(10, 3), sharey=True)
    for panel, direction in zip(panels, ("natural", "gradient", "random"), strict=True):
        for shade, (iteration, at) in zip(shades, stops.items(), strict=True):
            panel.loglog(found["lengths"], at["distance"][direction], color=shade,
                         label=f"iteration {iteration}")
        panel.axhline(0.01, color="black", linewidth=0.8, linestyle=":")
        panel.set_title({"natural": "natural gradient", "gradient": "gradient",
                         "random": "random direction"}[direction], fontsize=9)
        panel.set_xlabel("length of the step in the parameters", fontsize=8)
    panels[0].set_ylabel("KL moved", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    _save(figure, place / "distance.svg")

    figure, panels = plt.subplots(1, 2, figsize=(8, 3))
    for shade, (iteration, at) in zip(shades, stops.items(), strict=True):
        panels[0].loglog(at["model"]["kl_predicted"], at["model"]["kl"], color=shade,
                         label=f"iteration {iteration}")
        panels[1].semilogx(found["scales"], np.asarray(at["model"]["gain"])
                           / np.asarray(at["model"]["gain_predicted"])[8], color=shade)
    line = stops[next(iter(stops))]["model"]["kl_predicted"]
    panels[0].loglog(line, line, color="black", linewidth=0.8, linestyle=":")
    panels[0].set_xlabel("KL that the quadratic model predicts", fontsize=8)
    panels[0].set_ylabel("KL moved", fontsize=8)
    panels[0].legend(fontsize=7, frameon=False)
    panels[1].axhline(0, color="black", linewidth=0.8, linestyle=":")
    panels[1].set_xlabel("multiple of the full step", fontsize=8)
    panels[1].set_ylabel("gain / linear gain of the full step", fontsize=8)
    _save(figure, place / "model.svg")

    figure, panels = plt.subplots(1, 2, figsize=(10, 3))
    names = list(stops[next(iter(stops))]["updates"])
    colours = plt.get_cmap("tab10")(range(len(names)))
    for name, colour in zip(names, colours, strict=True):
        points = [at["updates"][name] for at in stops.values()]
        panels[0].loglog([p["kl"] for p in points], [p["largest_kl"] for p in points], "o",
                         color=colour, label=name, markersize=4)
        panels[1].semilogx([p["kl"] for p in points], [p["gain"] for p in points], "o",
                           color=colour, markersize=4)
    for panel in panels:
        panel.axvline(0.01, color="black", linewidth=0.8, linestyle=":")
        panel.set_xlabel("mean KL moved by one update", fontsize=8)
        panel.minorticks_off()
    panels[0].set_ylabel("largest KL over states", fontsize=8)
    panels[1].set_ylabel("gain of the surrogate", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), fontsize=7, frameon=False,
                  loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, place / "updates.svg")

    figure, panels = plt.subplots(1, 2, figsize=(8, 3))
    points = len(found["normalizer"]["folded"][0]["return"])
    steps = found["steps_per_iteration"] * np.linspace(0, found["iterations"], points + 1)[1:]
    shades = plt.get_cmap("plasma")(np.linspace(0, 0.9, len(found["toofar"])))
    for shade, (limit, runs) in zip(shades, found["toofar"].items(), strict=True):
        panels[0].plot(steps, np.nanmean(np.asarray(runs), axis=0), color=shade, label=limit)
    panels[0].legend(fontsize=6, frameon=False, title="max_kl", title_fontsize=7)
    panels[0].set_xlabel("environment steps", fontsize=8)
    panels[0].set_ylabel("return, mean over seeds", fontsize=8)
    for (name, runs), colour in zip(found["normalizer"].items(), ("#0072B2", "#D55E00"),
                                    strict=True):
        for i, run in enumerate(runs):
            panels[1].semilogy(steps, np.maximum(run["drift_kl"], 1e-6), color=colour,
                               linewidth=0.8, label=name if i == 0 else None)
    panels[1].axhline(0.01, color="black", linewidth=0.8, linestyle=":")
    panels[1].set_xlabel("environment steps", fontsize=8)
    panels[1].set_ylabel("KL moved by the normaliser", fontsize=8)
    panels[1].legend(fontsize=7, frameon=False)
    _save(figure, place / "runs.svg")


def _save(figure: plt.Figure, path: Path) -> None:
    for panel in figure.axes:
        panel.tick_params(labelsize=7)
        panel.grid(alpha=0.3, linewidth=0.5)
        for side in ("top", "right"):
            panel.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def summary(found: dict[str, Any]) -> str:
    """The tables of the page, as Markdown."""
    lines = ["| iteration | KL of a step of length 0.1: natural gradient | gradient | random |",
             "| --- | --- | --- | --- |"]
    near = int(np.argmin(np.abs(np.log(np.asarray(found["lengths"]) / 0.1))))
    for iteration, at in found["stops"].items():
        values = [at["distance"][d][near] for d in ("natural", "gradient", "random")]
        lines.append(f"| {iteration} | " + " | ".join(f"{x:.2g}" for x in values) + " |")
    names = list(found["stops"][next(iter(found["stops"]))]["updates"])
    lines += ["", "| update | mean KL, smallest to largest | largest KL over states | gain |",
              "| --- | --- | --- | --- |"]
    for name in names:
        points = [at["updates"][name] for at in found["stops"].values()]
        kls = [p["kl"] for p in points]
        lines.append(
            f"| {name} | {min(kls):.2g} to {max(kls):.2g} | "
            f"{max(p['largest_kl'] for p in points):.2g} | "
            f"{min(p['gain'] for p in points):.3f} to {max(p['gain'] for p in points):.3f} |"
        )
    lines += ["", "| max_kl | return of the last tenth, each seed |", "| --- | --- |"]
    tail = max(round(len(found["normalizer"]["folded"][0]["return"]) / 10), 1)
    for limit, runs in found["toofar"].items():
        ends = ", ".join(f"{np.nanmean(run[-tail:]):.0f}" for run in runs)
        lines.append(f"| {limit} | {ends} |")
    lines += ["", "| normaliser | largest KL moved by it after the first batch | return |",
              "| --- | --- | --- |"]
    for name, runs in found["normalizer"].items():
        drift = ", ".join(f"{max(run['drift_kl']):.2g}" for run in runs)
        ends = ", ".join(f"{np.nanmean(run['return'][-tail:]):.0f}" for run in runs)
        lines.append(f"| {name} | {drift} | {ends} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="brax/hopper")
    parser.add_argument("--backend", default="spring")
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--place", type=Path, default=PLACE)
    parser.add_argument("--draw", action="store_true", help="only draw what was measured before")
    arguments = parser.parse_args()
    arguments.place.mkdir(parents=True, exist_ok=True)
    data = arguments.place / "data.json"
    if not arguments.draw:
        found = measure(arguments.env, arguments.backend, arguments.iterations, arguments.seeds)
        data.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    found = json.loads(data.read_text())
    draw(found, arguments.place)
    print(summary(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
