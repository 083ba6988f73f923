"""Brax's environments: names, backends, the mended swimmer; physics against Brax's own wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch, brax_suite
from jtrust.environments.base import Box

pytestmark = pytest.mark.slow


def test_every_brax_environment_is_listed_with_its_backends():
    from brax import envs

    assert set(brax_suite.names()) == set(envs._envs)
    assert brax_suite.backends("ant") == ("generalized", "spring", "positional", "mjx")
    assert brax_suite.backends("swimmer") == ("generalized",)
    assert brax_suite.backends("fast") == ()


EVERYTHING = [
    (name, backend)
    for name in brax_suite.names() for backend in brax_suite.backends(name) or [None]
]


@pytest.mark.parametrize(("name", "backend"), EVERYTHING)
def test_every_environment_can_be_made_on_every_backend_that_it_supports(name, backend):
    environment = jtrust.make_env(f"brax/{name}", backend=backend, episode_length=77)
    assert environment.name == f"brax/{name}"
    # The shapes of reset and step are checked against each other where it is made.
    assert environment.observation.ndim == 1 and environment.observation.shape[0] > 0
    assert isinstance(environment.action, Box) and environment.action.size > 0
    assert environment.episode_length == 77
    assert environment.options == {
        **({} if backend is None else {"backend": backend}), "episode_length": 77
    }


def test_a_bare_name_means_brax_and_its_own_choice_of_backend():
    environment = jtrust.make_env("inverted_pendulum")
    assert environment.name == "brax/inverted_pendulum" and environment.options == {}
    assert environment.episode_length == 1000


@pytest.mark.nightly
def test_swimmer_steps_and_its_fluid_drags():
    environment = jtrust.make_env("brax/swimmer")

    @jax.jit
    def glide(key):
        state = environment.reset(key)
        state, speeds = jax.lax.scan(
            lambda s, _: (lambda n: (n, jnp.abs(n.obs[3:]).sum()))(
                environment.step(s, jnp.zeros(2))
            ), state, length=20,
        )
        return state, speeds

    state, speeds = glide(jax.random.key(0))
    assert np.all(np.isfinite(state.obs))
    assert speeds[-1] < speeds[0]


@pytest.mark.parametrize(("name", "arguments", "says"), [
    ("brax/antt", {}, "brax/ant|ant"), ("brx/ant", {}, "brax/ant"), ("", {}, "SUITE/NAME"),
    (3, {}, "SUITE/NAME"), ("brax/ant", {"backend": "spring "}, "spring"),
    ("brax/swimmer", {"backend": "mjx"}, "generalized"), ("brax/fast", {"backend": "mjx"}, "leave"),
    ("brax/ant", {"colour": "red"}, "colour"),
    ("brax/ant", {"ctrl_cost": 1}, "ctrl_cost_weight"),
    ("brax/ant", {"domain_randomization": True}, "give one as randomizer="),
    ("brax/ant", {"episode_length": 0}, "1000"),
])
def test_what_there_is_not_is_answered_with_what_there_is(name, arguments, says):
    with pytest.raises(jtrust.BadArgument, match=says):
        jtrust.make_env(name, **arguments)


def test_a_batch_of_episodes_goes_as_brax_itself_steps_them():
    """Same physics, rewards and ends as brax.envs under its EpisodeWrapper, without auto-reset."""
    from brax import envs

    length = 25
    environment = jtrust.make_env("brax/inverted_pendulum", episode_length=length)
    theirs = envs.create(
        "inverted_pendulum", episode_length=length, auto_reset=False, batch_size=16
    )
    actions = jax.random.uniform(jax.random.key(1), (40, 16, 1), minval=-1, maxval=1)
    keys = jax.random.split(jax.random.key(0), 16)

    @jax.jit
    def ours_run():
        episodes = batch.begin(batch.reset_states(environment, keys))
        starts = batch.reset_states(environment, jax.random.split(jax.random.key(5), 16))

        def step(episodes, x):
            action, t = x
            moved, outcome = batch.step(environment, episodes, action)
            end = outcome.termination | outcome.truncation
            return batch.restart(moved, starts, end, t), (moved.observation, outcome)

        return jax.lax.scan(step, episodes, (actions, jnp.arange(40)))

    @jax.jit
    def theirs_run():
        def step(state, action):
            state = theirs.step(state, action)
            return state, (state.obs, state.reward, state.done, state.info["truncation"])

        return jax.lax.scan(step, theirs.reset(jax.random.key(0)), actions)

    _, (observation, outcome) = ours_run()
    _, (their_observation, reward, done, truncation) = theirs_run()
    done, truncation = (np.asarray(x).astype(bool) for x in (done, truncation))
    end = np.asarray(outcome.termination | outcome.truncation)
    first_end = np.where(end.any(0), end.argmax(0), 39)
    assert np.asarray(outcome.termination).any()
    for i in range(16):
        until = first_end[i] + 1
        np.testing.assert_allclose(observation[:until, i], their_observation[:until, i], atol=1e-4)
        np.testing.assert_allclose(outcome.reward[:until, i], reward[:until, i])
        np.testing.assert_array_equal(end[:until, i], done[:until, i])
        np.testing.assert_array_equal(outcome.truncation[:until, i], truncation[:until, i])
