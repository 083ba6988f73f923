"""Observations of any type are normalised, and batches that cannot be are counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from tests.conftest import Point


class Half(Point):
    """Observations in float16, in units that go beyond 256."""

    def _state(self, position, action):
        state = super()._state(position, action)
        return dataclasses.replace(state, obs=(1000.0 * state.obs).astype(jnp.float16))


class Vast(Point):
    """Finite observations whose squares are not."""

    def _state(self, position, action):
        state = super()._state(position, action)
        return dataclasses.replace(state, obs=1e30 * state.obs)


class VastRewards(Point):
    def _state(self, position, action):
        state = super()._state(position, action)
        return dataclasses.replace(state, reward=1e30 * state.reward)


def iterated(env, iterations=2):
    trainer = jtrust.make_trainer(env, jtrust.TRPO(), num_envs=32, unroll_length=16, devices=1)
    state = trainer.init(jax.random.key(0))
    for _ in range(iterations):
        state, metrics = trainer.iterate(state)
    return state, metrics


def test_half_precision_observations_are_normalised():
    state, metrics = iterated(Half())
    moments = state.observation_statistics
    assert moments.count == 2 * 32 * 16 and 100 < moments.std()[0] < 2000
    assert metrics["observation/skipped"] == 0 and metrics["policy/kl"] > 1e-4


@pytest.mark.parametrize(("env", "name"), [
    (Vast(), "observation/skipped"), (VastRewards(), "value/targets_skipped"),
])
def test_a_batch_that_a_normaliser_leaves_out_is_counted(env, name):
    state, metrics = iterated(env)
    counted = {k: float(metrics[k]) for k in ("observation/skipped", "value/targets_skipped")}
    assert counted == dict.fromkeys(counted, 0.0) | {name: 1.0}
    assert np.all(np.isfinite(jax.flatten_util.ravel_pytree(jax.device_get(state.policy))[0]))
