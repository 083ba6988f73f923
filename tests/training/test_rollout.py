"""What a rollout gathers: the same on an accelerator's way as on a CPU's, and as a plain loop."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch, describe
from jtrust.training.packing import Packed
from jtrust.training.rollout import Restarts, rollout
from tests.conftest import Point
from tests.training.test_devices_alike import Brief

STEPS, COUNT = 20, 16


def policy(memory, observation):
    mean = 0.3 * observation[:, :1]
    return jtrust.distributions.DiagonalGaussian(mean, jnp.zeros_like(mean)), memory


def values(memory, observation):
    return 10.0 + jnp.sum(observation, axis=-1)


def start(kind):
    environment = describe(kind(), "brief", episode_length=7)
    keys = jax.random.split(jax.random.key(0), COUNT)
    starts = batch.reset_states(environment, keys)
    return environment, batch.begin(starts), starts, keys


@pytest.mark.parametrize("kind", [Point, Brief])
def test_an_accelerator_gathers_what_a_cpu_does(kind):
    environment, *inputs = start(kind)
    run = functools.partial(rollout, environment, policy, values, unroll_length=STEPS)
    on_cpu, on_accelerator = (
        jax.jit(functools.partial(run, restarts=Restarts(branch=branch)))(*inputs)
        for branch in (True, False)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), on_cpu, on_accelerator)
    kinds = [jax.tree.map(lambda x: (x.shape, x.dtype), x[1:]) for x in (on_cpu, on_accelerator)]
    assert kinds[0] == kinds[1]


def test_truncated_steps_have_the_value_of_the_true_last_observation_and_episodes_are_summed():
    environment, episodes, starts, keys = start(Brief)
    _, trajectory, totals = rollout(
        environment, policy, values, episodes, starts, keys, STEPS, Restarts(branch=False)
    )
    returns, lengths, ended = [], [], 0
    for t in range(STEPS):
        episodes, outcome = batch.step(environment, episodes, trajectory.action[t])
        np.testing.assert_allclose(
            trajectory.truncation_value[t],
            np.where(outcome.truncation, values((), outcome.last_observation), 0.0), rtol=1e-6,
        )
        end = outcome.termination | outcome.truncation
        returns += list(np.asarray(episodes.reward_sum)[np.asarray(end)])
        lengths += list(np.asarray(episodes.length)[np.asarray(end)])
        ended += int(jnp.sum(end))
        episodes = batch.restart(episodes, starts, end, t)
    assert trajectory.truncation.any() and trajectory.termination.any()
    assert totals.count == ended > 20
    np.testing.assert_allclose(totals.reward, sum(returns), rtol=1e-5)
    assert totals.length == sum(lengths)


def test_packed_arrays_come_back_as_they_were_with_an_axis_of_time_before_them():
    tree = {
        "real": jnp.linspace(-1.0, 1.0, 12).reshape(3, 2, 2),
        "flag": jnp.array([True, False, True]),
        "bins": jnp.array([[0, 2**24], [5, 6], [-7, 8]], jnp.int32), "none": jnp.zeros((3, 0)),
    }
    _, packed = jax.lax.scan(lambda c, _: (c, Packed.of(tree)), 0, length=2)
    assert packed.numbers.shape == (2, 3, 7)

    def same(found, x):
        np.testing.assert_array_equal(found, np.stack([x, x]))
        assert found.dtype == x.dtype

    jax.tree.map(same, packed.tree(), tree)
