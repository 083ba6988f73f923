"""Costs that environments tell: found, summed up beside a plain loop, changed by wrappers."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch, describe, safe_suite, wrappers
from jtrust.environments.compact import compact
from jtrust.training.evaluation import evaluate_policy
from tests.conftest import Point, PointState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CostlyState(PointState):
    cost: Any = ()


class Costly(Point):
    """A point that tells how hard it is pushed, and how far it is from 0."""

    def reset(self, key):
        return self.told(super().reset(key), jnp.float32(0.0))

    def step(self, state, action):
        return self.told(super().step(state, action), jnp.abs(action[0]))

    def told(self, state, push):
        fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(PointState)}
        return CostlyState(**fields, cost={"push": push, "far": jnp.abs(state.position)})


def stepped(environment, actions, length=5, count=4):
    """StepOutcomes of `actions` [T, N, 1], with restarts, and the episodes after them."""
    environment = compact(dataclasses.replace(environment, episode_length=length))
    starts = batch.reset_states(environment, jax.random.split(jax.random.key(0), count))

    def step(episodes, x):
        action, t = x
        moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        return batch.restart(moved, starts, end, t), outcome

    begun = batch.begin(starts, costs=environment.costs)
    return jax.jit(lambda a: jax.lax.scan(step, begun, (a, jnp.arange(len(a)))))(actions)


def test_costs_are_summed_over_episodes_as_a_plain_loop_does():
    actions = jax.random.uniform(jax.random.key(1), (23, 4, 1), minval=-2, maxval=2)
    environment = describe(Costly(), "costly")
    assert environment.costs == ("far", "push")
    episodes, seen = stepped(environment, actions)
    np.testing.assert_allclose(
        seen.costs["push"], np.abs(np.clip(actions[..., 0], -1, 1)), rtol=1e-6
    )
    for name in environment.costs:
        total = np.zeros(4)
        for t in range(23):
            total += np.asarray(seen.costs[name][t])
            end = np.asarray(seen.termination[t] | seen.truncation[t])
            np.testing.assert_allclose(
                seen.episode_costs[name][t], np.where(end, total, 0.0), rtol=1e-5
            )
            total[end] = 0.0
        np.testing.assert_allclose(episodes.cost_sums[name], total, rtol=1e-5)
    assert seen.episode_end.sum() > 10


def test_a_cost_that_is_not_finite_breaks_the_step_as_a_reward_would():
    class Breaks(Costly):
        def told(self, state, push):
            state = super().told(state, push)
            return dataclasses.replace(
                state, cost={**state.cost, "push": jnp.where(push > 0.9, jnp.nan, push)}
            )

    actions = jnp.where(jnp.arange(12)[:, None, None] % 4 == 2, 1.0, 0.1) * jnp.ones((12, 4, 1))
    _, seen = stepped(describe(Breaks(), "breaks"), actions, length=100)
    np.testing.assert_array_equal(seen.nonfinite[:, 0], np.arange(12) % 4 == 2)
    assert np.all(np.isfinite(seen.costs["push"])) and not seen.episode_end.any()
    assert np.all(np.asarray(seen.truncation) == np.asarray(seen.nonfinite))


def test_one_number_in_info_is_a_cost_too_whatever_its_type():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class State(PointState):
        info: Any = ()

    class Told(Point):
        def reset(self, key):
            return self.told(super().reset(key))

        def step(self, state, action):
            return self.told(super().step(state, action))

        def told(self, state):
            fields = {f.name: getattr(state, f.name) for f in dataclasses.fields(PointState)}
            return State(**fields, info={"cost": state.position > 0})

    environment = describe(Told(), "told")
    assert environment.costs == ("cost",)
    _, seen = stepped(environment, jnp.ones((3, 4, 1)), length=100)
    assert seen.costs["cost"].dtype == jnp.float32 and set(np.unique(seen.costs["cost"])) <= {0, 1}


@pytest.mark.parametrize(("cost", "later", "said"), [
    ({"push": jnp.zeros(2)}, {"push": jnp.zeros(2)}, r"cost\['push'\]=\(2,\): must be a scalar"),
    ({"a/b": jnp.float32(0)}, {"a/b": jnp.float32(0)}, "is no name for a cost"),
    ({"a": jnp.float32(0)}, {"b": jnp.float32(0)}, "is missing"),
    ({"a": jnp.float32(0)}, {"a": jnp.float32(0), "b": jnp.float32(0)}, "is missing"),
    ({"a": jnp.float32(0)}, {"a": jnp.zeros(3)}, "must be a scalar"),
    ({"a": jnp.complex64(0)}, {"a": jnp.complex64(0)}, "must be a real number"),
])
def test_costs_that_will_not_do_are_refused_in_one_line(cost, later, said):
    class Bad(Costly):
        def reset(self, key):
            return dataclasses.replace(super().reset(key), cost=cost)

        def step(self, state, action):
            return dataclasses.replace(super().step(state, action), cost=later)

    with pytest.raises(jtrust.BadArgument, match=said) as error:
        describe(Bad(), "bad")
    assert "\n" not in str(error.value)


def test_wrappers_keep_add_repeat_and_penalise_costs(point):
    actions = jax.random.uniform(jax.random.key(2), (8, 4, 1), minval=-1, maxval=1)
    inside = describe(point, "point")
    added = wrappers.add_costs(inside, {
        "push": lambda state, action, after: jnp.abs(action[0]),
        "moved": lambda state, action, after: jnp.abs(after.position - state.position),
    })
    assert added.costs == ("moved", "push") and added.name == "point+add_costs(moved,push)"
    _, seen = stepped(added, actions, length=100)
    np.testing.assert_allclose(seen.costs["moved"], 0.3 * np.abs(actions[..., 0]), rtol=1e-4)
    _, scaled = stepped(wrappers.scale_reward(added, 2.0), actions, length=100)
    np.testing.assert_allclose(scaled.costs["push"], seen.costs["push"])
    _, stacked = stepped(wrappers.frame_stack(added, 3), actions, length=100)
    np.testing.assert_allclose(stacked.costs["push"], seen.costs["push"])

    _, twice = stepped(wrappers.action_repeat(added, 2), actions, length=100)
    np.testing.assert_allclose(twice.costs["push"], 2 * np.abs(actions[..., 0]), rtol=1e-5)

    paid = wrappers.penalize_costs(added, {"push": 0.5})
    _, less = stepped(paid, actions, length=100)
    np.testing.assert_allclose(
        less.reward, seen.reward - 0.5 * seen.costs["push"], rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(less.costs["push"], seen.costs["push"])
    again = wrappers.add_costs(added, {"one": lambda *_: 1})
    assert again.costs == ("moved", "one", "push")


def test_wrappers_refuse_what_will_not_do(point):
    inside = wrappers.add_costs(describe(point, "point"), {"one": lambda *_: 1.0})
    for call, said in (
        (lambda: wrappers.add_costs(inside, {}), "functions by name"),
        (lambda: wrappers.add_costs(inside, {"two": 3}), "must be a function"),
        (lambda: wrappers.add_costs(inside, {"one": lambda *_: 1.0}), "has such a cost already"),
        (lambda: wrappers.add_costs(inside, {"x": lambda *_: jnp.zeros(2)}), "must be a scalar"),
        (lambda: wrappers.penalize_costs(inside, {"two": 1.0}), "unknown cost"),
        (lambda: wrappers.penalize_costs(inside, {"one": float("nan")}), "finite"),
        (lambda: wrappers.penalize_costs(inside, 3.0), "by names"),
    ):
        with pytest.raises(jtrust.BadArgument, match=said):
            call()


def test_evaluation_sums_costs_over_whole_episodes():
    environment = describe(Costly(), "costly", episode_length=9)

    def push(params, memory, observation, keys):
        return params * jnp.ones((len(observation), 1)), memory

    found = evaluate_policy(compact(environment), push, 0.25, jax.random.key(0), 6)
    assert np.all(found["length"] == 9)
    np.testing.assert_allclose(found["cost/push"], 9 * 0.25, rtol=1e-5)


@pytest.mark.slow
def test_safe_environments_cost_what_their_states_say():
    name = "safe/inverted_pendulum_distance"
    environment = jtrust.make_env(name, backend="spring", episode_length=7)
    assert environment.name == name and environment.episode_length == 7
    assert environment.options == {"backend": "spring", "episode_length": 7}

    def run(key):
        def step(state, _):
            state = environment.step(state, jnp.asarray([0.8]))
            return state, (state.cost["distance"], state.obs[0])

        return jax.lax.scan(step, environment.reset(key), length=5)[1]

    cost, position = jax.jit(run)(jax.random.key(0))
    np.testing.assert_allclose(cost, np.abs(position), rtol=1e-5)
    assert cost[-1] > 0.01
    with pytest.raises(jtrust.BadArgument, match="hopper_speed"):
        jtrust.make_env("safe/hopper_sped")


@pytest.mark.nightly
@pytest.mark.parametrize("name", safe_suite.names())
def test_all_safe_environments_can_be_made(name):
    costs = jtrust.make_env(f"safe/{name}", backend="spring").costs
    assert safe_suite.remark(name) == f"(cost: {', '.join(costs)})"
