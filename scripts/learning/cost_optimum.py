"""Learning under limits beside the best policy that there is, by linear programming.

    python -m scripts.learning.cost_optimum --run [METHOD ...]    # trains; some minutes each
    python -m scripts.learning.cost_optimum                       # the table of what is kept

A small constrained decision problem: four places, three actions, moves by chance, one cost or two.
Over stationary distributions the best policy within limits is a linear program (Altman, 1999).
Keeps docs/evidence/costs/optimum/METHOD.json; writes docs/evidence/costs/optimum.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

import jtrust
from jtrust.environments import describe

PAGES = Path(__file__).resolve().parents[2] / "docs/evidence/costs"
STATES, ACTIONS, LENGTH = 4, 3, 50
_RNG = np.random.default_rng(7)
TRANSITIONS = _RNG.dirichlet(np.ones(STATES), size=(STATES, ACTIONS))
REWARDS = _RNG.uniform(size=(STATES, ACTIONS))
# What pays costs, so that limits bind; the second cost is of being in the last place.
COSTS = {
    "effort": np.round(0.5 * REWARDS + 0.5 * _RNG.uniform(size=(STATES, ACTIONS)), 3),
    "place": np.repeat((np.arange(STATES) == STATES - 1).astype(float)[:, None], ACTIONS, 1),
}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PlaceState:
    place: jax.Array
    key: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    cost: dict


class Places:
    """Goes from place to place by chance, by the action."""

    action = jtrust.Discrete(ACTIONS)

    def __init__(self, costs: tuple[str, ...]):
        self.costs = costs

    def reset(self, key):
        key, start = jax.random.split(key)
        place = jax.random.randint(start, (), 0, STATES)
        return self._at(place, key, jnp.float32(0), dict.fromkeys(self.costs, jnp.float32(0)))

    def step(self, state, action):
        key, move = jax.random.split(state.key)
        odds = jnp.asarray(TRANSITIONS, jnp.float32)[state.place, action]
        place = jax.random.choice(move, STATES, p=odds)
        take = lambda table: jnp.asarray(table, jnp.float32)[state.place, action]  # noqa: E731
        return self._at(place, key, take(REWARDS), {c: take(COSTS[c]) for c in self.costs})

    def _at(self, place, key, reward, cost):
        return PlaceState(
            place, key, jax.nn.one_hot(place, STATES), reward, jnp.float32(0.0), cost
        )


def optimum(limits: Mapping[str, float]) -> tuple[float, np.ndarray]:
    """(mean reward of a step, how often each place and action, [S A]) of the best policy, where
    no cost of a step is above its limit."""
    flow = np.zeros((STATES, STATES * ACTIONS))
    for s in range(STATES):
        for a in range(ACTIONS):
            flow[:, s * ACTIONS + a] -= TRANSITIONS[s, a]
            flow[s, s * ACTIONS + a] += 1.0
    found = linprog(
        -REWARDS.ravel(),
        A_ub=np.stack([COSTS[c].ravel() for c in limits]) if limits else None,
        b_ub=list(limits.values()) if limits else None,
        A_eq=np.vstack([flow, np.ones(STATES * ACTIONS)]), b_eq=[0.0] * STATES + [1.0],
    )
    assert found.success
    return -found.fun, found.x


@functools.cache
def free_rates() -> dict[str, float]:
    """Costs of a step of the best policy without limits."""
    _, visits = optimum({})
    return {c: float(COSTS[c].ravel() @ visits) for c in COSTS}


# A deterministic policy learns nothing of other actions, so multipliers must be there in time.
IN_TIME = {"ki": 0.2, "entropy_cost": 0.02}
METHODS: dict[str, tuple[Any, dict[str, float]]] = {
    "cpo": (jtrust.CPO, {}),
    "trpo-lagrangian": (jtrust.TRPOLagrangian, IN_TIME),
    "ppo-lagrangian": (jtrust.PPOLagrangian, IN_TIME),
}
PROBLEMS = (("effort",), ("effort", "place"))
UPDATES = 200


@dataclasses.dataclass(frozen=True)
class Learned:
    """What training came to, over its last fifth.

    Attributes:
      share: reward of a step, as a share of the optimum's.
      costs: of a step, as shares of the limits.
    """

    share: float
    costs: dict[str, float]


def learned(method: str, names: tuple[str, ...], seed: int = 0) -> Learned:
    """Trains with limits of 0.8 of what the best policy without any costs."""
    rates = {c: 0.8 * free_rates()[c] for c in names}
    kind, settings = METHODS[method]
    result = jtrust.train(
        describe(Places(names), "places", episode_length=LENGTH),
        kind(
            cost_limits={c: LENGTH * rate for c, rate in rates.items()}, discount=0.95, **settings
        ),
        num_envs=64, unroll_length=32, total_steps=64 * 32 * UPDATES, devices=1, seed=seed,
        network=jtrust.NetworkConfig(policy_layers=(32,), value_layers=(32,)),
    )

    def late(metric: str) -> float:
        return float(np.nanmean(result.metrics[metric][-UPDATES // 5:])) / LENGTH

    best, _ = optimum(rates)
    return Learned(
        late("episode/return") / best, {c: late(f"cost/{c}") / x for c, x in rates.items()}
    )


def page(kept: Mapping[str, list[dict[str, Any]]]) -> str:
    """The table, in Markdown."""
    lines = [
        f"`python -m scripts.learning.cost_optimum --run`: one seed, {UPDATES} updates of 2,048 "
        "steps; means over the last fifth.", "",
        "| method | costs | reward over the optimum's | costs over their limits |",
        "| --- | --- | --- | --- |",
    ]
    for method, rows in kept.items():
        for names, row in zip(PROBLEMS, rows, strict=True):
            costs = ", ".join(f"{x:.3f}" for x in row["costs"].values())
            lines.append(f"| `{method}` | {', '.join(names)} | {row['share']:.3f} | {costs} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--run", nargs="*", choices=[*METHODS], metavar="METHOD")
    chosen = parser.parse_args().run
    (PAGES / "optimum").mkdir(parents=True, exist_ok=True)
    files = {method: PAGES / "optimum" / f"{method}.json" for method in METHODS}
    for method in ([] if chosen is None else chosen or [*METHODS]):
        found = [dataclasses.asdict(learned(method, names)) for names in PROBLEMS]
        files[method].write_text(json.dumps(found) + "\n")
    kept = {m: json.loads(path.read_text()) for m, path in files.items() if path.exists()}
    (PAGES / "optimum.md").write_text(page(kept))


if __name__ == "__main__":
    main()
