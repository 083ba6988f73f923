"""Episodes side by side: time limits apart from failures, fresh starts, non-finite values."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch
from jtrust.environments.base import describe


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CounterState:
    start: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    empty: jax.Array


class Counter:
    """Observation [start, steps]; pays the step number; fails when told to by the action."""

    action_size = 1

    def reset(self, key):
        start = jax.random.uniform(key)
        return self.state(start, jnp.float32(0))

    def step(self, state, action):
        return self.state(state.start, state.obs[1] + 1, action[0] > 0.5)

    @staticmethod
    def state(start, count, done=False):
        # `done` is a bool here and a float in Brax; an empty leaf is what mjx states have.
        return CounterState(start, jnp.stack([start, count]), count, jnp.asarray(done),
                            jnp.zeros((0,)))


def run(limit, failures, n=16, steps=20, head_start=None):
    environment = describe(Counter(), "counter", episode_length=limit)
    keys = jax.random.split(jax.random.key(0), n)
    starts = batch.reset_states(environment, jax.random.split(jax.random.key(1), n))
    actions = np.zeros((steps, n, 1), np.float32)
    for t, i in failures:
        actions[t, i] = 1.0

    def step(episodes, x):
        action, t = x
        moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        after = batch.restart(moved, starts, end, t)
        return after, (outcome, moved.observation, after.observation)

    begun = batch.begin(batch.reset_states(environment, keys), head_start=head_start)
    _, (outcome, moved, after) = jax.jit(lambda: jax.lax.scan(
        step, begun, (jnp.asarray(actions), jnp.arange(steps))
    ))()
    return jax.device_get((outcome, moved, after, starts))


def test_time_limits_and_failures_against_a_plain_loop():
    rng = np.random.default_rng(0)
    failures = {(int(t), int(i)) for t, i in zip(rng.integers(0, 20, 30), rng.integers(0, 16, 30),
                                                 strict=True)}
    outcome, _, _, _ = run(7, failures)
    for i in range(16):
        count, total = 0, 0.0
        for t in range(20):
            count += 1
            total += count
            failed, cut = (t, i) in failures, count == 7
            assert outcome.reward[t, i] == count
            assert outcome.termination[t, i] == failed
            assert outcome.truncation[t, i] == (cut and not failed)
            assert outcome.last_observation[t, i, 1] == count  # before the restart
            assert outcome.episode_end[t, i] == (failed or cut)
            assert outcome.episode_return[t, i] == (total if failed or cut else 0)
            assert outcome.episode_length[t, i] == (count if failed or cut else 0)
            if failed or cut:
                count, total = 0, 0.0


def test_an_episode_with_a_head_start_is_cut_early_and_not_counted():
    head_start = np.arange(16, dtype=np.int32) % 7
    failures = {(2, 3), (2, 7), (5, 14)}  # of episodes with head starts 3, 0 and 0
    outcome, _, _, _ = run(7, failures, head_start=jnp.asarray(head_start))
    for i in range(16):
        count, total, ahead = 0, 0.0, head_start[i]
        for t in range(20):
            count += 1
            total += count
            failed, cut = (t, i) in failures, count + ahead == 7
            assert outcome.termination[t, i] == failed
            assert outcome.truncation[t, i] == (cut and not failed)
            assert outcome.last_observation[t, i, 1] == count
            counts = (failed or cut) and ahead == 0
            assert outcome.episode_end[t, i] == counts
            assert outcome.episode_return[t, i] == (total if counts else 0)
            assert outcome.episode_length[t, i] == (count if counts else 0)
            if failed or cut:
                count, total, ahead = 0, 0.0, 0


def test_an_episode_goes_on_from_a_fresh_start_and_from_another_one_next_time():
    _, _, after, starts = run(5, [])
    seen = []
    for t in (4, 9, 14, 19):
        assert np.all(after[t, :, 1] == 0)
        assert set(after[t, :, 0]) == set(starts.start)  # each start is handed out once
        seen.append(after[t, 0, 0])
    assert len(set(seen)) == 4


def test_environments_that_did_not_end_are_left_alone():
    _, moved, after, _ = run(100, [(3, 2)])
    changed = np.any(moved != after, axis=-1)
    assert changed[3, 2] and changed.sum() == 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DrawState:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict


class Draws:
    """Shows a number drawn at every step, by a typed key or by a raw one as Brax has it."""

    action_size = 1
    raw = False

    def reset(self, key):
        return self.draw(jax.random.key_data(key) if self.raw else key)

    def step(self, state, action):
        return self.draw(state.info["rng"])

    def draw(self, key):
        key, own = jax.random.split(key)
        return DrawState(
            jax.random.uniform(own, (1,)), jnp.float32(0), jnp.zeros((), bool), {"rng": key}
        )


class RawDraws(Draws):
    raw = True


@pytest.mark.parametrize("kind", [Draws, RawDraws])
def test_what_is_drawn_in_one_start_is_new_each_time_it_is_handed_out(kind):
    environment = describe(kind(), "draws", episode_length=2)
    starts, begun = (
        batch.reset_states(environment, jax.random.split(jax.random.key(seed), 8))
        for seed in range(2)
    )

    def step(episodes, t):
        moved, outcome = batch.step(environment, episodes, jnp.zeros((8, 1)))
        after = batch.restart(moved, starts, outcome.truncation, t)
        return after, moved.observation

    _, seen = jax.jit(lambda: jax.lax.scan(step, batch.begin(begun), jnp.arange(64)))()
    assert len(np.unique(seen)) == seen.size


class Sick(Counter):
    def step(self, state, action):
        new = super().step(state, jnp.zeros(1))
        bad = jnp.where(action[0] > 0.5, jnp.nan, 0.0)
        return dataclasses.replace(new, obs=new.obs + bad, reward=new.reward + bad)


def test_a_nonfinite_step_ends_the_episode_without_counting_it():
    environment = describe(Sick(), "sick", episode_length=50)
    episodes = batch.begin(batch.reset_states(environment, jax.random.split(jax.random.key(0), 4)))
    action = jnp.asarray([[0.0], [1.0], [0.0], [0.0]])
    _, outcome = batch.step(environment, episodes, action)
    np.testing.assert_array_equal(outcome.nonfinite, [False, True, False, False])
    np.testing.assert_array_equal(outcome.truncation, [False, True, False, False])
    assert not outcome.episode_end.any() and not outcome.termination.any()
    assert outcome.reward[1] == 0 and outcome.episode_return[1] == 0
    np.testing.assert_array_equal(outcome.last_observation[1], episodes.observation[1])


def test_states_keep_their_types_through_steps_and_restarts():
    environment = jtrust.make_env("brax/fast")
    states = jax.eval_shape(
        lambda k: batch.begin(batch.reset_states(environment, k)),
        jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 4)),
    )
    after = jax.eval_shape(
        lambda s: batch.step(environment, s, jnp.zeros((4, environment.action.size)))[0], states
    )
    for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(after), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert not a.weak_type


class NoStep:
    action_size = 1
    reset = Counter.reset


class WrongReward(Counter):
    @staticmethod
    def state(start, count, done=False):
        made = Counter.state(start, count, done)
        return dataclasses.replace(made, reward=jnp.zeros(3))


class Growing(Counter):
    def step(self, state, action):
        new = super().step(state, action)
        return dataclasses.replace(new, obs=jnp.zeros(5))


class Picture(Counter):
    @staticmethod
    def state(start, count, done=False):
        return dataclasses.replace(Counter.state(start, 0.0, done), obs=jnp.zeros((3, 3)))

    def step(self, state, action):
        return state


class Blind(Counter):
    @staticmethod
    def state(start, count, done=False):
        return dataclasses.replace(Counter.state(start, 0.0, done), obs=jnp.zeros(0))

    def step(self, state, action):
        return state


class OneForAll(Counter):
    def reset(self, key, wind):
        return super().reset(key)

    def step(self, state, action, wind):
        return super().step(state, action)

    def vary(self, keys):
        return {"wind": jax.random.uniform(keys[0], (1,))}


class Raising(Counter):
    def step(self, state, action):
        return state.obs @ jnp.zeros((7, 7))


@pytest.mark.parametrize(("kind", "says"), [
    (NoStep, "step"), (WrongReward, "reward"), (Growing, r"\.obs"), (Picture, "vector"),
    (Raising, "cannot be traced"), (Blind, "not empty"), (OneForAll, r"vary\(\)\['wind'\].*\[N"),
])
def test_a_wrong_environment_is_refused_with_the_field_that_is_wrong(kind, says):
    with pytest.raises(jtrust.BadArgument, match=says):
        describe(kind(), "wrong")
