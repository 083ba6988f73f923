"""A small constrained decision problem whose best policy is known by linear programming."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import jtrust
from jtrust.environments import describe

pytestmark = pytest.mark.nightly

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

    def __init__(self, costs):
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


def optimum(limits):
    """Mean reward of a step, at best, over the stationary distributions of all policies."""
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
def free_rates():
    _, visits = optimum({})
    return {c: float(COSTS[c].ravel() @ visits) for c in COSTS}


@pytest.mark.parametrize("kind", [jtrust.CPO, jtrust.TRPOLagrangian, jtrust.PPOLagrangian])
@pytest.mark.parametrize("names", [("effort",), ("effort", "place")])
def test_training_comes_to_the_best_policy_within_the_limits(kind, names):
    rates = {c: 0.8 * free_rates()[c] for c in names}
    best, _ = optimum(rates)
    assert best < 0.97 * optimum({})[0]  # limits bind
    result = jtrust.train(
        describe(Places(names), "places", episode_length=LENGTH),
        kind(cost_limits={c: LENGTH * rate for c, rate in rates.items()}, discount=0.95),
        num_envs=64, unroll_length=32, total_steps=64 * 32 * 200, devices=1,
        network=jtrust.NetworkConfig(policy_layers=(32,), value_layers=(32,)),
    )
    late = slice(-40, None)
    returns = np.nanmean(result.metrics["episode/return"][late]) / LENGTH
    assert returns == pytest.approx(best, rel=0.03)
    for c, rate in rates.items():
        cost = np.nanmean(result.metrics[f"cost/{c}"][late]) / LENGTH
        assert cost <= 1.05 * rate, c
