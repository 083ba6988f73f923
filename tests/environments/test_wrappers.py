"""Wrappers against loops written out by hand, one on another, and on dictionaries."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust import wrappers
from jtrust.environments import batch
from jtrust.environments.base import describe

pytestmark = pytest.mark.slow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    obs: dict
    reward: jax.Array
    done: jax.Array
    info: dict


class Ladder:
    """Climbs by the action; pays the height; fails above 10; its own limit is below -3."""

    action_size = 1
    dictionary = False

    def reset(self, key):
        return self._state(jax.random.uniform(key))

    def step(self, state, action):
        height = state.obs["state"][0] if self.dictionary else state.obs[0]
        return self._state(height + action[0])

    def _state(self, height):
        obs = jnp.stack([height, -height])
        if self.dictionary:
            obs = {"state": obs[:1], "privileged_state": obs, "unused": jnp.zeros(7)}
        return State(obs, height, height > 10, {"truncation": height < -3})


class Rungs(Ladder):
    dictionary = True


def roll(environment, actions, seed=0):
    """What one environment shows along a row of actions, on the host."""

    def step(state, action):
        state = environment.step(state, action)
        return state, (state.obs, state.reward, state.done, batch.own_truncation(state))

    def run(key):
        start = jax.tree.map(lambda x: batch.strong(jnp.asarray(x)), environment.reset(key))
        return start.obs, jax.lax.scan(step, start, actions)[1]

    return jax.device_get(jax.jit(run)(jax.random.key(seed)))


def test_repeated_actions_sum_rewards_until_the_episode_ends():
    environment = describe(Ladder(), "ladder", episode_length=10)
    repeated = wrappers.action_repeat(environment, 3)
    assert repeated.episode_length == 4 and repeated.name == "ladder+action_repeat(3)"
    for pushes in ([[1.0], [1.0], [3.0]], [[-1.0], [-2.0]]):
        actions = jnp.asarray(pushes)
        start, (obs, reward, done, cut) = roll(repeated, actions)
        height = float(start[0])
        for t, (push,) in enumerate(pushes):
            total = 0.0
            for _ in range(3):
                height += push
                total += height
                if height > 10 or height < -3:
                    break
            np.testing.assert_allclose(obs[t], [height, -height], rtol=1e-5)
            np.testing.assert_allclose(reward[t], total, rtol=1e-5)
            assert done[t] == (height > 10) and cut[t] == (height < -3)
            if done[t] or cut[t]:
                break
        assert done[-1] or cut[-1]


class Paid(Ladder):
    """Says whether it pays instead of how much."""

    def _state(self, height):
        return dataclasses.replace(super()._state(height), reward=jnp.asarray(True))


def test_rewards_that_are_true_or_false_are_summed_too():
    repeated = wrappers.action_repeat(Paid(), 4)
    reward = roll(repeated, jnp.zeros((3, 1)))[1][1]
    np.testing.assert_array_equal(reward, [4.0, 4.0, 4.0])


def test_frames_are_stacked_oldest_first_and_start_as_copies():
    environment = wrappers.frame_stack(describe(Ladder(), "ladder"), 3)
    assert environment.observation.shape == (6,)
    actions = jnp.asarray([[1.0], [2.0], [0.5], [-1.0]])
    start, (obs, *_) = roll(environment, actions)
    frames = [start[:2]] * 3
    np.testing.assert_array_equal(start, np.concatenate(frames))
    for t in range(4):
        height = frames[-1][0] + actions[t, 0]
        frames = [*frames[1:], np.asarray([height, -height])]
        np.testing.assert_allclose(obs[t], np.concatenate(frames), rtol=1e-6)


def test_stacked_differences_tell_the_frames():
    ladder = describe(Ladder(), "ladder")
    actions = jnp.asarray([[1.0], [2.0], [0.5], [-1.0]])
    first, (frames, *rest) = roll(wrappers.frame_stack(ladder, 3), actions)
    environment = wrappers.frame_stack(ladder, 3, differences=True)
    start, (obs, *same) = roll(environment, actions)
    assert environment.name.endswith("+frame_stack(3,differences)")
    for told, expected in zip([start, *obs], [first, *frames], strict=True):
        before, last, newest = np.asarray(expected).reshape(3, 2)
        expected = np.concatenate([last - before, newest - last, newest])
        np.testing.assert_allclose(told, expected, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, same, rest)


def test_what_is_hidden_is_left_out_of_what_the_policy_reads_alone():
    actions = jnp.asarray([[1.0], [2.0]])
    plain, hidden = describe(Ladder(), "ladder"), wrappers.hide(Ladder(), (1,))
    assert hidden.observation.shape == (1,) and hidden.name.endswith("+hide(1)")
    (start, (obs, *rest)), (first, (seen, *same)) = roll(plain, actions), roll(hidden, actions)
    np.testing.assert_array_equal(first, start[:1])
    np.testing.assert_array_equal(seen, obs[:, :1])
    jax.tree.map(np.testing.assert_array_equal, rest, same)
    rungs = describe(Rungs(), "rungs", policy_observation="privileged_state",
                     value_observation="state")
    shapes = jax.tree.map(lambda x: x.shape, wrappers.hide(rungs, [0]).observation)
    assert shapes == {"state": (1,), "privileged_state": (1,)}


def test_rewards_are_scaled():
    plain = describe(Ladder(), "ladder")
    actions = jnp.asarray([[1.0], [2.0]])
    reward = roll(plain, actions)[1][1]
    np.testing.assert_allclose(roll(wrappers.scale_reward(plain, -0.1), actions)[1][1],
                               -0.1 * reward, rtol=1e-6)


def test_noise_has_its_deviation_and_is_new_at_every_step():
    plain = describe(Ladder(), "ladder")
    noisy = wrappers.observation_noise(plain, 0.5)
    actions = jnp.zeros((4000, 1))
    obs, reward, *_ = roll(noisy, actions)[1]
    noise = obs - np.stack([reward, -reward], -1)  # the reward is the height, without noise
    assert abs(noise.std() - 0.5) < 0.02 and abs(noise.mean()) < 0.02
    assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 0.05


class Pixels(Ladder):
    def _state(self, height):
        return dataclasses.replace(super()._state(height), obs=jnp.zeros(3, jnp.uint8))

    def step(self, state, action):
        return self._state(state.reward)


def test_noisy_whole_numbers_are_declared_as_the_fractions_they_become():
    noisy = wrappers.observation_noise(Pixels(), 1.0)
    assert noisy.observation.dtype == jnp.float32
    assert roll(noisy, jnp.zeros((2, 1)))[1][0].dtype == np.float32


def all_of_them(environment):
    environment = wrappers.action_repeat(environment, 2)
    environment = wrappers.observation_noise(environment, 0.01)
    environment = wrappers.frame_stack(environment, 2)
    return wrappers.scale_reward(environment, 0.5)


def test_wrappers_compose_on_dictionaries_and_leave_the_value_functions_part_exact():
    environment = all_of_them(describe(Rungs(), "rungs", episode_length=9))
    assert environment.name == (
        "rungs+action_repeat(2)+observation_noise(0.01)+frame_stack(2)+scale_reward(0.5)"
    )
    shapes = jax.tree.map(lambda x: x.shape, environment.observation)
    assert shapes == {"state": (2,), "privileged_state": (4,)} and environment.episode_length == 5
    start, (obs, reward, done, cut) = roll(environment, jnp.asarray([[1.0], [-4.0]]))
    height = start["privileged_state"][0]
    np.testing.assert_allclose(reward[0], 0.5 * (2 * height + 3), rtol=1e-5)
    exact = [height, -height, height + 2, -height - 2]
    np.testing.assert_allclose(obs["privileged_state"][0], exact, rtol=1e-5)
    error = obs["state"][0] - np.asarray([height, height + 2])
    assert 0 < np.abs(error).max() < 0.1
    assert cut[1] and not done[1]


@pytest.mark.parametrize("kind", [
    Ladder, pytest.param(Rungs, marks=pytest.mark.nightly),
])
def test_training_in_wrapped_environments(kind):
    environment = all_of_them(describe(kind(), "wrapped", episode_length=9))
    trainer = jtrust.make_trainer(environment, jtrust.TRPO(), num_envs=16, unroll_length=8,
                                  devices=1)
    _, metrics = trainer.iterate(trainer.init(jax.random.key(0)))
    assert metrics["policy/accepted"] and metrics["episode/count"] > 0
    assert metrics["episode/length"] <= 5


@pytest.mark.nightly
def test_a_physics_environment_can_be_wrapped():
    environment = all_of_them(jtrust.make_env("brax/inverted_pendulum"))

    @jax.jit
    def one_step(keys):
        episodes = batch.begin(batch.reset_states(environment, keys))
        return batch.step(environment, episodes, jnp.ones((2, 1)))

    after, outcome = one_step(jax.random.split(jax.random.key(0), 2))
    assert after.observation.shape == (2, 8) and np.all(np.isfinite(after.observation))
    np.testing.assert_allclose(outcome.reward, 0.5 * 2, rtol=1e-6)


def test_a_run_in_a_wrapped_environment_wants_it_again(tmp_path):
    environment = wrappers.scale_reward(jtrust.make_env("brax/fast", episode_length=20), 0.5)
    arguments = dict(num_envs=16, unroll_length=8, devices=1, run_dir=tmp_path / "run")
    jtrust.train(environment, total_steps=128, **arguments)
    with pytest.raises(jtrust.BadArgument, match=r"scale_reward\(0.5\); pass it as env="):
        jtrust.evaluate(tmp_path / "run")
    assert jtrust.evaluate(tmp_path / "run", env=environment, episodes=2)["episodes"] == 2
    inside = jtrust.make_env("brax/fast", episode_length=20)
    for other in (inside, wrappers.scale_reward(inside, 1.0),
                  wrappers.scale_reward(jtrust.make_env("brax/hopper", episode_length=20), 0.5)):
        with pytest.raises(jtrust.BadArgument, match=r"trained in brax/fast|has observations"):
            jtrust.resume(tmp_path / "run", 256, env=other, devices=1)
    # Evaluated in what is asked for: here without the scale.
    both = [jtrust.evaluate(tmp_path / "run", env=env, episodes=2) for env in (environment, inside)]
    assert both[0]["return_mean"] == pytest.approx(0.5 * both[1]["return_mean"], rel=1e-4)
    assert both[1]["env"] == "brax/fast"


@pytest.mark.parametrize(("wrap", "value"), [
    (wrappers.action_repeat, 0), (wrappers.frame_stack, 1.5), (wrappers.observation_noise, -1),
    (wrappers.scale_reward, float("nan")), (wrappers.scale_reward, np.ones(3)),
    (wrappers.observation_noise, jnp.ones(3)), (wrappers.hide, (2,)), (wrappers.hide, (-1,)),
    (wrappers.hide, ()), (wrappers.hide, (0, 1)), (wrappers.hide, 1), (wrappers.hide, (0.5,)),
])
def test_what_will_not_do_is_refused(wrap, value):
    with pytest.raises(jtrust.BadArgument):
        wrap(describe(Ladder(), "ladder"), value)
