"""CPO's step and PID-controlled multipliers, beside dense matrices and plain loops."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jtrust
from jtrust.algorithms.batch import Batch, CostBatch
from jtrust.algorithms.cost_surrogate import CostSurrogate
from jtrust.algorithms.lagrangian import Controller, mixed
from jtrust.distributions import DiagonalGaussian
from jtrust.trust_region import constrained_step

T, N, O = 16, 24, 3  # noqa: E741


def policy(params, observation):
    """A linear policy with a deviation of its own."""
    mean = observation @ params["weight"]
    return DiagonalGaussian(mean, jnp.broadcast_to(params["log_std"], mean.shape))


def made(estimate, seed=0, gain=1.0, costs=1):
    """(parameters, a batch in which actions that pay cost something too)."""
    keys = jax.random.split(jax.random.key(seed), 5)
    params = {"weight": 0.3 * jax.random.normal(keys[0], (O, 2)), "log_std": jnp.full(2, -0.5)}
    observation = jax.random.normal(keys[1], (T, N, O))
    action = policy(params, observation).sample(keys[2])
    noise = action - policy(params, observation).mode()
    advantage = gain * noise[..., 0] + 0.3 * jax.random.normal(keys[3], (T, N))
    advantage = (advantage - advantage.mean()) / advantage.std()
    of_costs = jnp.stack([
        2.0 * noise[..., 0] * observation[..., 0] + noise[..., 0] + 0.5 * noise[..., 1],
        -noise[..., 1] + 0.2 * noise[..., 0],
    ])[:costs]
    of_costs -= of_costs.mean((1, 2), keepdims=True)
    return params, Batch(
        observation=observation, value_observation=observation, action=action,
        advantage=advantage, value_target=advantage,
        environment_keys=jax.random.split(keys[4], N),
        costs=CostBatch(of_costs, jnp.asarray(estimate, jnp.float32), jnp.float32(100.0)),
    )


def updated(estimate, limits, seed=0, **options):
    names = ["a", "b"][: len(limits)]
    algorithm = jtrust.CPO(
        cost_limits=dict(zip(names, limits, strict=True)), max_kl=1e-3, entropy_cost=0.0,
        cg_iterations=20, fisher_stride=1, **options,
    )
    params, batch = made(estimate, seed, costs=len(limits))
    new, _, metrics = jax.jit(
        lambda p, b: algorithm.update((), p, policy, b)
    )(params, batch)
    surrogate = CostSurrogate(params, policy, batch, batch.costs, 0.0, None)
    return params, new, metrics, surrogate


def dense(surrogate, params):
    """(F, g, B) as matrices: F by the Hessian of the mean KL, B by finite differences."""
    flat, unravel = ravel_pytree(params)

    def kl(x):
        return jnp.mean(surrogate.old.kl_divergence(policy(unravel(x), surrogate.observation)))

    fisher = np.asarray(jax.hessian(kl)(flat), float)
    rows = []
    for i in range(flat.size):
        step = 1e-2 * jnp.eye(flat.size)[i]
        after, before = (
            np.asarray([
                surrogate.at(unravel(flat + s))["gain"], *surrogate.rates_at(unravel(flat + s))
            ]) for s in (step, -step)
        )
        rows.append((after - before) / 2e-2)
    gradients = np.stack(rows, axis=1)
    return fisher, gradients[0], gradients[1:]


def test_gradients_of_costs_are_those_of_finite_differences():
    params, batch = made([1.0, 1.0], costs=2)
    surrogate = CostSurrogate(params, policy, batch, batch.costs, 0.0, None)
    _, _, rows = dense(surrogate, params)
    np.testing.assert_allclose(surrogate.cost_gradients(), rows, rtol=1e-2, atol=2e-3)
    np.testing.assert_allclose(surrogate.rates_at(params), 0.0, atol=1e-7)


@pytest.mark.parametrize(("estimate", "limits"), [
    ([1.0], [50.0]),  # far from the limit
    ([9.0], [9.3]),  # at it
    ([11.0], [9.5]),  # beyond it, within reach
    ([9.0, 4.0], [9.3, 4.1]),
])
def test_the_step_is_that_of_dense_matrices(estimate, limits):
    """Without damping: ours by conjugate gradients, the other by a solver."""
    params, new, metrics, surrogate = updated(estimate, limits, damping=1e-5)
    fisher, gradient, rows = dense(surrogate, params)
    excess = (np.asarray(estimate) - limits) / 100.0
    both = np.vstack([gradient, rows])
    inverse = np.linalg.solve(fisher, both.T)
    found = constrained_step(
        jnp.float32(both @ inverse), jnp.float32(excess), jnp.float32(1e-3)
    )
    wanted = inverse @ np.concatenate([[found.objective], found.constraints])
    step = (ravel_pytree(new)[0] - ravel_pytree(params)[0]) / metrics["policy/step_scale"]
    assert metrics["policy/accepted"] == 1 and metrics["policy/recovery"] == 0
    np.testing.assert_allclose(step, wanted, atol=0.03 * np.abs(wanted).max())
    assert float(metrics["policy/kl_predicted"]) == pytest.approx(
        1e-3 * float(metrics["policy/step_scale"]) ** 2, rel=0.02
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("damping", [1e-3, 0.1])
def test_an_update_keeps_to_the_limits_it_can_keep(seed, damping):
    for estimate, limit in ((9.0, 9.2), (9.6, 9.2), (30.0, 9.2)):
        _, new, metrics, surrogate = updated([estimate], [limit], seed, damping=damping)
        change = 100.0 * float(surrogate.rates_at(new)[0])
        assert change == pytest.approx(float(metrics["cost/a/surrogate_change"]), abs=2e-3)
        assert metrics["policy/accepted"] == 1
        assert float(surrogate.at(new)["kl"]) <= 1e-3
        if estimate <= limit:
            assert change <= limit - estimate + 1e-3 and metrics["policy/surrogate_gain"] > 0
        else:
            assert change < 0
        if estimate == 30.0:  # out of reach: only the cost counts
            assert metrics["policy/recovery"] == 1
            assert float(metrics["policy/kl"]) > 0.5e-3


def test_recovery_brings_a_cost_down_more_than_any_other_step():
    _, new, _, surrogate = updated([30.0], [9.0])
    _, toward, _, _ = updated([9.0], [9.0])
    assert surrogate.rates_at(new)[0] < surrogate.rates_at(toward)[0] - 1e-3


def test_nothing_moves_where_what_is_known_is_not_finite():
    algorithm = jtrust.CPO(cost_limits={"a": 1.0})
    params, batch = made([2.0])
    for broken in (
        CostBatch(batch.costs.advantage * jnp.nan, batch.costs.estimate, jnp.float32(9.0)),
        CostBatch(batch.costs.advantage, jnp.asarray([jnp.nan]), jnp.float32(9.0)),
    ):
        new, _, metrics = algorithm.update(
            (), params, policy, dataclasses.replace(batch, costs=broken)
        )
        assert metrics["policy/accepted"] == 0
        jax.tree.map(np.testing.assert_array_equal, new, params)
    with pytest.raises(ValueError, match="no costs"):
        algorithm.update((), params, policy, dataclasses.replace(batch, costs=None))


def test_the_controller_is_a_plain_loop():
    algorithm = jtrust.TRPOLagrangian(cost_limits="a=10,b=0", kp=0.7, ki=0.2, kd=1.5)
    series = np.asarray([
        [5.0, 0.0], [12.0, 1.0], [20.0, 3.0], [14.0, 0.0], [9.0, 0.0], [3.0, 0.0], [11.0, 2.0],
    ])
    controller = Controller(jnp.zeros(2), jnp.full(2, -1.0))
    found = []
    for estimate in series:
        controller, multipliers = algorithm.control(controller, jnp.float32(estimate))
        found.append(multipliers)
    for k, limit in enumerate((10.0, 0.0)):
        integral, before = 0.0, series[0, k]
        for t, cost in enumerate(series[:, k]):
            size = max(cost, limit, 1e-12)
            error = (cost - limit) / size
            integral = max(integral + 0.2 * error, 0.0)
            rise = max(cost - before, 0.0) / size
            wanted = max(0.7 * error + integral + 1.5 * rise, 0.0)
            assert float(found[t][k]) == pytest.approx(wanted, abs=1e-5), (t, k)
            before = cost


def test_multipliers_are_bounded_and_come_back_at_once():
    algorithm = jtrust.TRPOLagrangian(cost_limits="a=1", ki=1.0, max_multiplier=2.0)
    controller = Controller(jnp.zeros(1), jnp.full(1, -1.0))
    for _ in range(50):
        controller, multipliers = algorithm.control(controller, jnp.asarray([100.0]))
    assert multipliers[0] == 2.0
    for _ in range(3):
        controller, multipliers = algorithm.control(controller, jnp.asarray([0.0]))
    assert multipliers[0] == 0.0


def test_costs_are_weighed_into_the_advantage():
    _, batch = made([1.0, 1.0], costs=2)
    broken = np.zeros((T, N), np.float32)
    broken[3, 4] = 1.0
    batch = dataclasses.replace(batch, broken=jnp.asarray(broken))
    found = mixed(batch, jnp.asarray([0.5, 2.0]), None)
    deviations = np.sqrt(np.mean(np.asarray(batch.costs.advantage) ** 2, axis=(1, 2)))
    wanted = batch.advantage - sum(
        w * np.asarray(a) / d
        for w, a, d in zip((0.5, 2.0), batch.costs.advantage, deviations, strict=True)
    )
    wanted = np.where(broken > 0, batch.advantage, wanted / 3.5)
    np.testing.assert_allclose(found.advantage, wanted, rtol=1e-4, atol=1e-5)
    assert found.costs is None
    nothing = mixed(batch, jnp.zeros(2), None)
    np.testing.assert_allclose(nothing.advantage, batch.advantage, rtol=1e-6)


def test_numbers_are_leaves_that_vmap_may_run_over():
    algorithm = jtrust.CPO(cost_limits="speed=25,torque=100")
    assert algorithm.cost_limits == {"speed": 25.0, "torque": 100.0}
    leaves, structure = jax.tree.flatten(algorithm)
    assert 25.0 in leaves and 100.0 in leaves
    assert jax.tree.unflatten(structure, leaves) == algorithm
    found = jax.vmap(lambda a: a.limits_of_costs())(
        jax.tree.map(lambda x: x * jnp.ones(3), algorithm)
    )
    np.testing.assert_allclose(found, [[25.0, 100.0]] * 3)
