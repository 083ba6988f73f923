"""gymnax: its own steps, restarts and time limits, and every environment that runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch, gymnax_suite

pytestmark = pytest.mark.slow

gymnax = pytest.importorskip("gymnax")


def play(name, actions, n, **options):
    """Every step's outcome and observation, from `n` environments that restart where they began."""
    environment = jtrust.make_env(f"gymnax/{name}", **options)
    starts = batch.reset_states(environment, jax.random.split(jax.random.key(0), n))

    def step(episodes, action):
        moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        return batch.restart(moved, starts, end, jnp.int32(0)), (outcome, moved.observation)

    run = jax.jit(lambda actions: jax.lax.scan(step, batch.begin(starts), actions)[1])
    return environment, starts, jax.device_get(run(actions))


def test_cartpole_goes_as_gymnax_itself_and_its_time_limit_is_no_failure():
    n, steps, limit = 8, 80, 25
    actions = jax.random.randint(jax.random.key(1), (steps, n), 0, 2)
    environment, starts, (outcome, observation) = play(
        "CartPole-v1", actions, n, episode_length=limit
    )
    env, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=limit)
    their_step = jax.jit(env.step)  # with automatic restarts, told apart by `info`
    for i in range(n):
        first = state = jax.tree.map(lambda x: x[i], starts.inner)  # noqa: B023
        for t in range(steps):
            key = jax.random.key(7)
            _, state, reward, failed, cut, info = their_step(key, state, actions[t, i], params)
            # Before the restart, which is what the value of a cut episode is taken of.
            np.testing.assert_allclose(observation[t, i], info["final_observation"], atol=1e-5)
            np.testing.assert_array_equal(outcome.last_observation[t, i], observation[t, i])
            assert outcome.reward[t, i] == reward
            assert outcome.termination[t, i] == failed
            assert outcome.truncation[t, i] == (cut and not failed)
            if failed or cut:
                state = first
    assert outcome.termination.any() and outcome.truncation.any()
    assert environment.episode_length == limit
    assert jtrust.make_env("gymnax/CartPole-v1").episode_length == 500


def test_pendulums_torque_is_scaled_and_its_parameters_can_be_set():
    actions = jnp.full((3, 2, 1), 0.5)
    environment, starts, (outcome, observation) = play("Pendulum-v1", actions, 2, max_torque=4.0)
    assert environment.action == jtrust.Box(1, -4.0, 4.0)
    assert environment.options == {"max_torque": 4.0} and environment.episode_length == 200
    env, params = gymnax.make("Pendulum-v1")
    state = jax.tree.map(lambda x: x[1], starts.inner)
    for t in range(3):
        obs, state, reward, *_ = env.step_env(
            jax.random.key(0), state, jnp.full((1,), 2.0), params.replace(max_torque=4.0)
        )
        np.testing.assert_allclose(observation[t, 1], obs, atol=1e-5)
        np.testing.assert_allclose(outcome.reward[t, 1], reward, rtol=1e-5)


def test_random_environments_draw_anew_at_every_step_and_differ():
    actions = jnp.zeros((40, 4), jnp.int32)
    _, starts, (_, observation) = play("Asterix-MinAtar", actions, 4)
    assert observation.shape == (40, 4, 400) and observation.dtype == np.float32
    assert set(np.unique(observation)) <= {0.0, 1.0}
    assert not np.array_equal(observation[-1, 0], observation[-1, 1])
    assert starts.info["truncation"].dtype == bool
    # An environment whose steps are chance alone: no two of them get the same key.
    environment = jtrust.make_env("gymnax/Asterix-MinAtar")
    step, state = jax.jit(environment.step), environment.reset(jax.random.key(0))
    keys = [state.key]
    for _ in range(4):
        state = step(state, jnp.int32(0))
        keys.append(state.key)
    assert len({tuple(np.asarray(jax.random.key_data(k))) for k in keys}) == 5


def test_a_place_that_is_a_number_becomes_one_input_per_place():
    environment = jtrust.make_env("gymnax/FrozenLake-misc")
    assert environment.observation.shape == (16,)
    step, state = jax.jit(environment.step), environment.reset(jax.random.key(0))
    places = []
    for _ in range(6):
        state = step(state, jnp.int32(2))
        places.append(int(state.inner.position))
        np.testing.assert_array_equal(state.obs, np.eye(16)[places[-1]])
    assert len(set(places)) > 1


def test_every_environment_of_gymnax_can_be_made():
    made = {}
    for name in gymnax_suite.names():
        if not gymnax_suite.remark(name):
            made[name] = jtrust.make_env(f"gymnax/{name}")
    assert len(made) >= 25 and set(gymnax.registered_envs) - set(made) <= {"MNISTBandit-bsuite"}
    for environment in made.values():
        assert environment.observation.ndim == 1 and environment.observation.dtype == jnp.float32


@pytest.mark.parametrize(("name", "algorithm"), [
    ("CartPole-v1", jtrust.TRPO()), ("Pendulum-v1", jtrust.PPO()),
    *(pytest.param(*case, marks=pytest.mark.nightly) for case in (
        ("CartPole-v1", jtrust.PPO()), ("Pendulum-v1", jtrust.TRPO()),
        ("Asterix-MinAtar", jtrust.TRPO()),
    )),
], ids=lambda x: getattr(x, "name", x))
def test_algorithms_train_in_them(name, algorithm):
    trainer = jtrust.make_trainer(
        f"gymnax/{name}", algorithm, num_envs=16, unroll_length=8, devices=1
    )
    state, metrics = trainer.iterate(trainer.init(jax.random.key(0)))
    state, metrics = trainer.iterate(state)
    # In a game that has paid nothing yet there is nothing to learn from.
    unpaid = name == "Asterix-MinAtar"
    assert unpaid == bool(state.rewards_seen.least == state.rewards_seen.most == 0)
    assert metrics["policy/accepted"] != unpaid
    assert metrics["policy/kl"] <= algorithm.max_kl
    assert metrics["observation/drift_kl"] < 1e-4 and metrics["environment/nonfinite"] == 0


@pytest.mark.parametrize(("name", "arguments", "says"), [
    ("Cartpole-v1", {}, "CartPole-v1"), ("CartPole-v1", {"gravty": 3}, "gravity"),
    ("CartPole-v1", {"gravity": "low"}, "9.8"), ("CartPole-v1", {"backend": "mjx"}, "leave it out"),
    ("CartPole-v1", {"episode_length": 1.5}, "whole"),
    ("CartPole-v1", {"max_steps_in_episode": 5}, "unknown"),
    ("MountainCarContinuous-v0", {"domain_randomization": True}, "leave it out"),
    ("Pong-misc", {"paddle_y_speed": 1.9}, "whole number"),
    ("Asterix-MinAtar", {"ramping": 3}, "true or false"),
    ("Asterix-MinAtar", {"use_minimal_action_set": "no"}, "true or false"),
    ("Pong-misc", {"paddle_y_speed": float("nan")}, "whole number"),
    ("CartPole-v1", {"gravity": float("inf")}, "finite"),
    ("DiscountingChain-bsuite", {"n_actions": -1}, "gymnax/DiscountingChain-bsuite: "),
    ("SimpleBandit-bsuite", {"num_actions": "x"}, "whole number"),
    ("Acrobot-v1", {"available_torque": 1.0}, r"\(3,\) finite numbers"),
    ("MetaMaze-misc", {"maze_size": 2}, "Error"),
])
def test_what_will_not_do_is_answered_in_one_line(name, arguments, says):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        jtrust.make_env(f"gymnax/{name}", **arguments)
    assert "\n" not in str(caught.value)


def test_an_option_that_is_an_array_may_be_given_as_a_list():
    key, push = jax.random.key(0), jnp.int32(2)
    speeds = []
    for options in ({}, {"available_torque": [-5.0, 0.0, 5.0]}):
        made = jtrust.make_env("gymnax/Acrobot-v1", **options)
        speeds.append(made.step(made.reset(key), push).obs[4:])
    assert np.abs(speeds[1] - speeds[0]).max() > 0.1


def test_options_that_are_true_or_false_may_be_written_so():
    for given in (True, 1):
        made = jtrust.make_env("gymnax/PointRobot-misc", dense_reward=given)
        state = jax.jit(lambda key, made=made: made.step(made.reset(key), jnp.zeros(2)))(
            jax.random.key(0)
        )
        assert float(state.reward) < 0  # the distance; without the option it would be 0
    plain = jtrust.make_env("gymnax/PointRobot-misc")
    assert float(plain.step(plain.reset(jax.random.key(0)), jnp.zeros(2)).reward) == 0


def test_data_that_were_not_downloaded_are_missing_even_in_a_folder_of_their_own(
    monkeypatch, tmp_path
):
    monkeypatch.setattr(gymnax_suite, "_MNIST", str(tmp_path))
    with pytest.raises(jtrust.BadArgument, match="MNIST's four"):
        jtrust.make_env("gymnax/MNISTBandit-bsuite")
    assert "download" in gymnax_suite.remark("MNISTBandit-bsuite")


def test_a_missing_package_is_told_of_with_its_extra(monkeypatch):
    from jtrust.environments import extras

    with pytest.raises(jtrust.BadArgument, match=r"pip install 'jtrust\[gymnax\]'"):
        extras.import_extra("no_such_gymnax", "gymnax")
