"""Environments that are not alike: each keeps what is its own, on any devices, through a resume."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments.base import describe

pytestmark = pytest.mark.slow


@pytest.fixture
def winds(point):
    """The point of the other tests, each in a wind of its own that blows all the time."""

    class Wind:
        action_size = 1

        def vary(self, keys):
            return {"wind": jax.vmap(jax.random.normal)(keys)}

        def reset(self, key, variation):
            return self._blown(point.reset(key), variation)

        def step(self, state, action, variation):
            return self._blown(point.step(state, action + variation["wind"]), variation)

        def _blown(self, state, variation):
            # What an environment's observation tells is its own wind.
            return dataclasses.replace(state, obs=jnp.stack([state.position, variation["wind"]]))

    return describe(Wind(), "wind", episode_length=5)


def make(environment, devices=1):
    return jtrust.make_trainer(environment, jtrust.TRPO(), num_envs=16, unroll_length=16,
                               devices=devices)


def test_each_keeps_its_own_through_restarts_on_any_number_of_devices(winds):
    found = []
    for devices in (1, 8):
        trainer = make(winds, devices)
        state = trainer.init(jax.random.key(0))
        wind = np.asarray(state.episodes.variation["wind"])
        for _ in range(2):
            state, metrics = trainer.iterate(state)
            assert metrics["episode/count"] > 16
            np.testing.assert_array_equal(state.episodes.variation["wind"], wind)
            np.testing.assert_array_equal(state.episodes.observation[:, 1], wind)
        found.append(wind)
    assert len(np.unique(found[0])) == 16
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


@pytest.mark.nightly
def test_a_resumed_run_goes_on_in_the_same_environments(winds, tmp_path):
    sizes = dict(num_envs=16, unroll_length=16, devices=1)
    whole = jtrust.train(winds, total_steps=512, **sizes)
    jtrust.train(winds, total_steps=256, run_dir=tmp_path / "run", **sizes)
    resumed = jtrust.resume(tmp_path / "run", total_steps=512, env=winds, devices=1)
    data = lambda x: jax.random.key_data(x) if x.dtype == whole.state.key.dtype else x  # noqa: E731
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(data(a), data(b)),
                 whole.state, resumed.state)
    assert jtrust.evaluate(tmp_path / "run", env=winds, episodes=4)["length_mean"] <= 5


def test_wrappers_pass_it_on(winds):
    environment = jtrust.wrappers.frame_stack(jtrust.wrappers.action_repeat(winds, 2), 2)
    state, metrics = make(environment).iterate(make(environment).init(jax.random.key(0)))
    wind = state.episodes.variation["wind"]
    np.testing.assert_array_equal(state.episodes.observation[:, 1], wind)
    assert metrics["policy/accepted"]


def test_a_variation_that_cannot_be_drawn_is_told_of(winds):
    class Wrong:
        action_size = 1
        reset, step = winds.reset, winds.step

        def vary(self, keys):
            return keys @ 3

    with pytest.raises(jtrust.BadArgument, match=r"env\.vary"):
        describe(Wrong(), "wrong")
