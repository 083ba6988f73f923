"""Steps at which the simulator gave NaN or infinity count for nothing: breaking it never pays."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.advantages import gae
from jtrust.algorithms import Batch
from jtrust.training import preparation
from jtrust.training.batch_statistics import explained_variance, standardize, step_weights
from jtrust.training.mesh import REPLICATED, make_mesh, per_shard
from jtrust.training.random_keys import environment_keys
from tests.conftest import Point

pytestmark = pytest.mark.slow

ALGORITHMS = [
    jtrust.TRPO(), jtrust.PPO(),
    *(pytest.param(a, marks=pytest.mark.nightly) for a in (jtrust.NPG(), jtrust.PPOPenalty())),
]


class Breakable(Point):
    """Every step costs about 1, and a hard push breaks the simulator, which would save the rest."""

    def step(self, state, action):
        new = super().step(state, 0.1 * action)
        bad = jnp.where(action[0] > 0.8, jnp.nan, 1.0)
        return dataclasses.replace(
            new, obs=new.obs * bad, reward=-bad - 0.1 * new.position**2, done=0.0 * new.done
        )


def shares_of_broken_steps(algorithm, iterations):
    trainer = jtrust.make_trainer(
        Breakable(), algorithm, num_envs=64, unroll_length=32, devices=1
    )
    iterate, state, broken = jax.jit(trainer.iterate), trainer.init(jax.random.key(0)), []
    for _ in range(iterations):
        state, metrics = iterate(state)
        broken.append(int(metrics["environment/nonfinite"]))
    share = np.asarray(broken) / trainer.steps_per_iteration
    assert 0.1 < share[0] < 0.3  # actions above 0.8 of a unit normal
    return share


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_no_algorithm_learns_to_break_the_simulator(algorithm):
    share = shares_of_broken_steps(algorithm, 24)
    assert share[-4:].mean() < 0.5 * share[0]


@pytest.mark.nightly
def test_with_no_weight_in_the_surrogate_either_breaking_would_pay(monkeypatch):
    """Why such steps count there as worse than others; as if they were average is as if not at
    all."""
    monkeypatch.setattr(preparation, "BROKEN_ADVANTAGE", 0.0)
    assert shares_of_broken_steps(jtrust.TRPO(), 32)[-1] > 0.7


def test_the_update_is_that_of_the_whole_steps_alone():
    """Broken steps may hold anything finite; the batch without them gives the same update."""
    keys = jax.random.split(jax.random.key(0), 5)
    steps, envs = 16, 32
    observation = jax.random.normal(keys[0], (steps, envs, 2))
    action = jax.random.normal(keys[1], (steps, envs, 1))
    advantage = jax.random.normal(keys[2], (steps, envs))
    whole = jnp.arange(envs)[None] % 2 == jnp.zeros((steps, 1), int)  # every second environment
    advantage = (advantage - advantage[:, ::2].mean()) / advantage[:, ::2].std()
    weight = whole / jnp.mean(whole)
    every = Batch(
        observation, observation, action, jnp.where(whole, advantage, 100.0), advantage,
        jax.random.split(keys[3], envs), 1.0, weight,
    )
    half = Batch(
        observation[:, ::2], observation[:, ::2], action[:, ::2], advantage[:, ::2],
        advantage[:, ::2], every.environment_keys[::2],
    )
    trainer = jtrust.make_trainer(Point(), jtrust.TRPO(), num_envs=32, unroll_length=16, devices=1)
    params, apply = trainer.init(jax.random.key(1)).policy, trainer.policy_network
    for algorithm in (jtrust.TRPO(), jtrust.NPG()):
        one, two = (
            jax.jit(lambda b, a=algorithm: a.update((), params, apply, b))(b) for b in (every, half)
        )
        for name in ("policy/kl", "policy/entropy", "policy/surrogate_gain"):
            np.testing.assert_allclose(one[2][name], two[2][name], rtol=1e-3)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), one[0], two[0])


def on_one_device(function, *args):
    mesh = make_mesh(1, 1)
    return jax.jit(per_shard(function, mesh, REPLICATED, REPLICATED))(*args)


def test_weighted_statistics_are_those_of_what_is_whole():
    rng = np.random.default_rng(0)
    x, y = rng.normal(3.0, 2.0, (2, 16, 8)).astype(np.float32)
    whole = rng.random((16, 8)) > 0.3
    weight, share = on_one_device(step_weights, whole)
    assert share == pytest.approx(whole.mean()) and np.mean(weight) == pytest.approx(1, abs=1e-6)
    left = x[whole]
    found = np.asarray(on_one_device(standardize, x, weight))[whole]
    np.testing.assert_allclose(found, (left - left.mean()) / left.std(), rtol=1e-4, atol=1e-5)
    explained = on_one_device(explained_variance, x, y, weight)
    expected = 1 - np.var(y[whole] - x[whole]) / np.var(y[whole])
    assert explained == pytest.approx(expected, rel=1e-4)
    from jtrust.networks.running_statistics import RunningStatistics

    moments = RunningStatistics.zero(jax.ShapeDtypeStruct((), jnp.float32)).update(
        x, batch_axes=2, weight=weight, share=share
    )
    np.testing.assert_allclose(
        [moments.count, moments.mean, moments.variance],
        [whole.sum(), left.mean(), left.var()], rtol=1e-5,
    )


def test_advantages_before_a_break_end_with_the_last_whole_observation():
    """Against a plain computation of each stretch alone, with a value for what stands behind it."""
    trainer = jtrust.make_trainer(
        Breakable(), jtrust.TRPO(), num_envs=8, unroll_length=32, devices=1
    )
    algorithm = trainer.algorithm

    def gathered(state):
        keys = environment_keys(state, 8)
        state, trajectory, _ = trainer.collection(state, keys)
        final = trainer.values(state, state.episodes.observation)
        return trajectory, final, *trainer.estimation(state, trajectory)

    trajectory, final, values, advantages, targets = jax.device_get(on_one_device(
        gathered, trainer.init(jax.random.key(0))
    ))
    assert not trajectory.whole.all() and not trajectory.termination.any()
    for i in range(8):
        start = 0
        while start < 32:
            broken = np.flatnonzero(~trajectory.whole[start:, i])
            stop = start + broken[0] if broken.size else 32
            if stop > start:
                span = slice(start, stop)
                behind = values[stop, i] if stop < 32 else final[i]
                following = np.append(values[start + 1:stop, i], behind)
                no = np.zeros((stop - start, 1))
                expected, _ = gae(
                    trajectory.reward[span, i, None], values[span, i, None], following[:, None],
                    no, no, algorithm.discount, algorithm.gae_lambda,
                )
                np.testing.assert_allclose(advantages[span, i], expected[:, 0], atol=1e-4)
            if stop < 32:
                assert advantages[stop, i] == 0 and targets[stop, i] == values[stop, i]
            start = stop + 1
