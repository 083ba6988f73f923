"""The step under linear constraints against scipy's SLSQP, which is told the problem alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from jtrust.trust_region import constrained_step
from jtrust.trust_region.constrained_step import solve_positive

step_of = jax.jit(constrained_step)


def problem(seed, count, size=6):
    """(H, g [n], B [K, n], δ) of no particular scale."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(size, size))
    metric = root @ root.T + 0.3 * np.eye(size)
    gradient = rng.normal(size=size) * 10.0 ** rng.uniform(-2, 2)
    rows = rng.normal(size=(count, size)) * 10.0 ** rng.uniform(-2, 2, size=(count, 1))
    return metric, gradient, rows, 10.0 ** rng.uniform(-3, -1)


def reach(metric, row, max_kl):
    """How much a step in the trust region can change rowᵀx."""
    return np.sqrt(2 * max_kl * row @ np.linalg.solve(metric, row))


def ours(metric, gradient, rows, excess, max_kl):
    both = np.vstack([gradient, rows])
    inverse = np.linalg.solve(metric, both.T)
    found = step_of(jnp.float32(both @ inverse), jnp.float32(excess), jnp.float32(max_kl))
    coefficients = np.concatenate([[found.objective], found.constraints]).astype(float)
    return inverse @ coefficients, found


def slsqp(metric, gradient, rows, excess, max_kl):
    """Best over several starts of what scipy finds; None where it finds nothing feasible."""
    # On the scale of a unit ball, since SLSQP's tolerances are absolute.
    root = np.linalg.cholesky(metric)
    radius = np.sqrt(2 * max_kl)
    back = lambda z: radius * np.linalg.solve(root.T, z)  # noqa: E731
    size = np.linalg.norm(np.linalg.solve(root, gradient)) * radius
    reaches = [reach(metric, row, max_kl) for row in rows]
    limits = [{"type": "ineq", "fun": lambda z: 1.0 - z @ z}] + [
        {"type": "ineq", "fun": lambda z, c=c, b=b, r=r: -(c + b @ back(z)) / r}
        for c, b, r in zip(excess, rows, reaches, strict=True)
    ]
    best = None
    for seed in range(3):
        start = np.random.default_rng(seed).normal(size=len(gradient)) * 0.4
        done = minimize(lambda z: -gradient @ back(z) / size, start, method="SLSQP",
                        constraints=limits, options={"maxiter": 500, "ftol": 1e-12})
        broken = min(limit["fun"](done.x) for limit in limits)
        if done.success and broken > -1e-6 and (best is None or -done.fun * size > best):
            best = -done.fun * size
    return best


@pytest.mark.parametrize("count", [1, 2, 3])
def test_feasible_steps_are_those_of_slsqp(count):
    solved, bound = 0, 0
    for seed in range(12):
        metric, gradient, rows, max_kl = problem(seed, count)
        rng = np.random.default_rng(1000 + seed)
        excess = np.asarray([reach(metric, b, max_kl) for b in rows])
        excess = excess * rng.uniform(-0.8, 0.9, size=count)
        x, found = ours(metric, gradient, rows, excess, max_kl)
        best = slsqp(metric, gradient, rows, excess, max_kl)
        assert bool(found.feasible) == (best is not None), seed
        if best is None:
            continue
        whole = np.sqrt(2 * max_kl * gradient @ np.linalg.solve(metric, gradient))
        assert gradient @ x == pytest.approx(best, abs=2e-3 * whole), seed
        assert 0.5 * x @ metric @ x <= max_kl * 1.001
        for c, b in zip(excess, rows, strict=True):
            assert c + b @ x <= 1e-3 * reach(metric, b, max_kl)
        solved += 1
        bound += bool(np.any(found.active))
    assert solved >= 4 and bound >= 3


def test_multipliers_are_what_a_looser_limit_is_worth():
    for seed in range(10):
        metric, gradient, rows, max_kl = problem(seed, 2)
        reaches = np.asarray([reach(metric, b, max_kl) for b in rows])
        excess = -0.1 * reaches
        _, found = ours(metric, gradient, rows, excess, max_kl)
        for i in range(2):
            shift = np.zeros(2)
            shift[i] = 0.02 * reaches[i]
            more, _ = ours(metric, gradient, rows, excess - shift, max_kl)
            less, _ = ours(metric, gradient, rows, excess + shift, max_kl)
            slope = gradient @ (more - less) / (2 * shift[i])
            whole = np.sqrt(2 * max_kl * gradient @ np.linalg.solve(metric, gradient))
            assert float(found.multipliers[i]) == pytest.approx(
                slope, abs=0.05 * whole / reaches[i]
            )


def test_recovery_from_one_violation_is_the_papers():
    metric, gradient, (row,), max_kl = problem(3, 1)
    excess = 1.3 * reach(metric, row, max_kl)
    x, found = ours(metric, gradient, row[None], [excess], max_kl)
    inverse = np.linalg.solve(metric, row)
    by_paper = -np.sqrt(2 * max_kl / (row @ inverse)) * inverse  # equation 14
    assert not found.feasible and float(found.objective) == 0.0
    np.testing.assert_allclose(x, by_paper, rtol=1e-4)


def test_recovery_from_several_goes_to_the_nearest_point_that_meets_all():
    for seed in range(5):
        metric, gradient, rows, max_kl = problem(seed, 2)
        excess = np.asarray([1.5, 1.2]) * [reach(metric, b, max_kl) for b in rows]
        x, found = ours(metric, gradient, rows, excess, max_kl)
        # The nearest such point, by scipy, in units of the trust region.
        root, radius = np.linalg.cholesky(metric), np.sqrt(2 * max_kl)
        back = lambda z: radius * np.linalg.solve(root.T, z)  # noqa: B023, E731
        reaches = [reach(metric, b, max_kl) for b in rows]
        limits = [
            {"type": "ineq", "fun": lambda z, c=c, b=b, r=r, to=back: -(c + b @ to(z)) / r}
            for c, b, r in zip(excess, rows, reaches, strict=True)
        ]
        done = minimize(lambda z: z @ z, np.zeros(6), method="SLSQP", constraints=limits)
        assert done.success and not found.feasible
        along = back(done.x) / np.linalg.norm(done.x)
        np.testing.assert_allclose(x, along, atol=2e-3 * np.abs(along).max())
        assert 0.5 * x @ metric @ x == pytest.approx(max_kl, rel=1e-3)


def test_opposite_violations_have_no_point_and_the_worse_one_is_brought_down():
    metric, gradient, (row,), max_kl = problem(1, 1)
    most = reach(metric, row, max_kl)
    x, found = ours(metric, gradient, np.stack([row, -row]), [3 * most, 1 * most], max_kl)
    assert not found.feasible
    assert row @ x == pytest.approx(-most, rel=1e-3)


@pytest.mark.parametrize("excess", [-1.0, 1.0])
def test_a_cost_that_no_step_changes_is_left_out(excess):
    metric, gradient, _, max_kl = problem(0, 1)
    x, found = ours(metric, gradient, np.zeros((1, 6)), [excess], max_kl)
    free = np.linalg.solve(metric, gradient)
    free *= np.sqrt(2 * max_kl / (gradient @ free))
    np.testing.assert_allclose(x, free, rtol=1e-4)
    assert float(found.multipliers[0]) == 0.0


def test_degenerate_problems_stay_finite():
    metric, gradient, _, max_kl = problem(0, 1)
    for rows, excess in (
        (gradient[None], [0.0]),  # all that pays costs as much
        (gradient[None], [-1e-3]),
        (np.stack([gradient, gradient]), [-1e-3, 0.0]),  # the same cost twice
        (np.stack([gradient, -gradient]), [0.0, 0.0]),
    ):
        x, found = ours(metric, gradient, rows, excess, max_kl)
        assert np.all(np.isfinite(x)) and found.feasible
        assert np.all(np.asarray(excess) + rows @ x <= 1e-3 * np.abs(rows @ rows.T).max() ** 0.5)
    zero, _ = ours(metric, np.zeros(6), gradient[None], [-1.0], max_kl)
    assert not zero.any()
    still, _ = ours(metric, gradient, gradient[None], [-1.0], 0.0)
    assert not still.any()


def test_elimination_is_linalg_solve():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(5, 4, 4))
    matrices = roots @ np.swapaxes(roots, 1, 2) + np.eye(4)
    right = rng.normal(size=(5, 4, 2))
    np.testing.assert_allclose(
        solve_positive(jnp.float32(matrices), jnp.float32(right)),
        np.linalg.solve(matrices, right), rtol=1e-3, atol=1e-4,
    )


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="gram"):
        constrained_step(jnp.eye(2), jnp.zeros(2), 0.01)
    with pytest.raises(ValueError, match="9 constraints"):
        constrained_step(jnp.eye(10), jnp.zeros(9), 0.01)
