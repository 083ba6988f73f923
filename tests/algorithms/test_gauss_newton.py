"""Least squares by Gauss-Newton, beside numpy's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtrust.algorithms import Batch, ValueFit
from jtrust.algorithms.gauss_newton import gauss_newton_step
from jtrust.networks import NetworkConfig, make_value_network

STEPS, ENVS, SIZE = 12, 20, 5


def problem(seed=0):
    keys = jax.random.split(jax.random.key(seed), 3)
    observation = jax.random.normal(keys[0], (STEPS, ENVS, SIZE))
    target = jnp.sin(2.0 * observation[..., 0]) + 0.5 * observation[..., 1] ** 2
    weight = jax.random.uniform(keys[1], (STEPS, ENVS), minval=0.5)
    return observation, target, weight / weight.mean()


def linear(params, observation):
    return observation @ params["w"] + params["b"]


@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_linear_model_is_solved_in_one_step(on_cpu):
    observation, target, weight = problem()
    params = {"w": jnp.ones(SIZE), "b": jnp.float32(-3.0)}
    new, loss, sound = gauss_newton_step(
        linear, params, observation, target, weight, iterations=3 * SIZE, damping=0.0,
        on_cpu=on_cpu,
    )
    a = np.c_[np.asarray(observation).reshape(-1, SIZE), np.ones(STEPS * ENVS)]
    root = np.sqrt(np.asarray(weight).ravel())
    wanted, *_ = np.linalg.lstsq(a * root[:, None], np.asarray(target).ravel() * root, rcond=None)
    np.testing.assert_allclose(np.r_[new["w"], new["b"]], wanted, atol=2e-4)
    left = 0.5 * np.mean((root * (np.asarray(target).ravel() - a @ wanted)) ** 2)
    assert sound and loss == pytest.approx(left, rel=1e-4)


def test_damping_is_ridge_regression():
    observation, target, weight = problem(1)
    params = {"w": jnp.zeros(SIZE), "b": jnp.float32(0.0)}
    new, _, _ = gauss_newton_step(
        linear, params, observation, target, weight, iterations=3 * SIZE, damping=0.7
    )
    a = np.c_[np.asarray(observation).reshape(-1, SIZE), np.ones(STEPS * ENVS)]
    w = np.asarray(weight).ravel()[:, None] / (STEPS * ENVS)
    wanted = np.linalg.solve(
        a.T @ (w * a) + 0.7 * np.eye(SIZE + 1), a.T @ (w[:, 0] * np.asarray(target).ravel())
    )
    np.testing.assert_allclose(np.r_[new["w"], new["b"]], wanted, atol=1e-4)


@functools.cache
def network():
    module = make_value_network(NetworkConfig(value_layers=(16, 16)), SIZE, on_cpu=True)
    return module, module.init(jax.random.key(3), jnp.zeros(SIZE))


def test_the_loss_of_a_network_never_rises_and_falls_faster_than_by_adam():
    module, start = network()
    observation, target, weight = problem(2)
    keys = jax.random.split(jax.random.key(4), ENVS)
    batch = Batch(observation, observation, target, target, target, keys, weight=weight)
    losses = {}
    for solver in ("gauss-newton", "adam"):
        fit = ValueFit(solver=solver, minibatches=8, epochs=1)
        params, state = start, fit.init(start)
        found = []
        for _ in range(5):
            params, state, metrics = fit.update(state, params, module, batch)
            error = np.asarray(module(params, observation) - target)
            found.append(float(0.5 * np.mean(np.asarray(weight) * error**2)))
            assert metrics["value/skipped"] == 0
            if solver == "gauss-newton":
                assert metrics["value/loss"] == pytest.approx(found[-1], rel=1e-3)
        losses[solver] = found
    assert np.all(np.diff(losses["gauss-newton"]) < 0)
    assert losses["gauss-newton"][-1] < 0.5 * losses["adam"][-1]


@pytest.mark.parametrize("where", ["target", "observation"])
def test_what_is_not_finite_leaves_the_values_as_they_are(where):
    module, start = network()
    observation, target, weight = problem()
    if where == "target":
        target = target.at[0, 0].set(jnp.inf)
    else:
        observation = observation.at[0, 0, 0].set(jnp.nan)
    new, _, sound = gauss_newton_step(
        module, start, observation, target, weight, iterations=4, damping=1e-3
    )
    assert not sound
    jax.tree.map(np.testing.assert_array_equal, new, start)


def test_it_carries_no_state():
    _, start = network()
    assert ValueFit(solver="gauss-newton").init(start) == ()
