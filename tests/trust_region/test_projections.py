"""Projections onto a trust region in every state, against scipy's solver and finite differences."""

import functools

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from scipy import optimize

import jtrust
from jtrust.trust_region import PROJECTIONS, project

NAMES = tuple(PROJECTIONS)
BOUNDS = (0.05, 0.01)


def distances(name, mean, std, old_mean, old_std):
    """Both parts by the formulas of the paper's section 4, in float64."""
    maha = np.sum(((mean - old_mean) / old_std) ** 2)
    r = std / old_std
    if name == "kl":
        return 0.5 * maha, 0.5 * np.sum(r**2 - 1 - np.log(r**2))
    if name == "w2":
        return maha, np.sum((1 - r) ** 2)
    return maha, np.sum((std**2 - old_std**2) ** 2)


def problems(actions, count=6, spread=0.4):
    generator = np.random.default_rng(actions)
    for _ in range(count):
        old_mean, old_log_std = generator.normal(size=(2, actions)) * 0.5
        yield (
            old_mean + spread * generator.normal(size=actions),
            old_log_std + spread * generator.normal(size=actions), old_mean, old_log_std,
        )


def by_scipy(name, mean, log_std, old_mean, old_log_std):
    """argmin d(π̃, π_θ) in means, measured by Σ_old, and in deviations, each inside its bound."""
    std, old_std = np.exp(log_std), np.exp(old_log_std)

    def of_mean(x, other, by):
        return distances(name, x, by, other, by)[0]

    def of_cov(x, other):
        if name == "w2":  # both of its distances are by the old precision
            return np.sum(((np.exp(x) - other) / old_std) ** 2)
        return distances(name, mean, np.exp(x), mean, other)[1]

    kinds = dict(method="SLSQP", options={"ftol": 1e-14, "maxiter": 500})
    means = optimize.minimize(
        lambda x: of_mean(x, mean, old_std), 0.5 * (mean + old_mean), constraints={
            "type": "ineq", "fun": lambda x: (BOUNDS[0] - of_mean(x, old_mean, old_std)) * 10
        }, **kinds,
    )
    deviations = optimize.minimize(
        lambda x: of_cov(x, std) * 10, 0.5 * (log_std + old_log_std), constraints={
            "type": "ineq", "fun": lambda x: (BOUNDS[1] - of_cov(x, old_std)) * 10
        }, **kinds,
    )
    return means.x, deviations.x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("actions", [1, 3])
def test_it_is_the_nearest_inside_by_scipy(name, actions):
    outside = 0
    for given in problems(actions):
        mean, log_std = project(name, *(jnp.asarray(x, jnp.float32) for x in given), *BOUNDS)
        means, deviations = by_scipy(name, *given)
        np.testing.assert_allclose(mean, means, atol=2e-4)
        np.testing.assert_allclose(log_std, deviations, atol=2e-4)
        old_mean, old_std = given[2], np.exp(given[3])
        found = distances(name, np.asarray(mean, float), np.exp(np.asarray(log_std, float)),
                          old_mean, old_std)
        wanted = distances(name, given[0], np.exp(given[1]), old_mean, old_std)
        for part, at_first, bound in zip(found, wanted, BOUNDS, strict=True):
            outside += at_first > bound
            assert part == pytest.approx(min(at_first, bound), rel=1e-4)
    assert outside >= 6  # of 12


@pytest.mark.parametrize("name", NAMES)
def test_what_is_inside_stays_to_the_bit_and_has_the_gradient_of_doing_nothing(name):
    old = jnp.asarray([[0.3, -0.2], [0.0, 0.1]]), jnp.asarray([[-0.5, 0.2], [0.1, 0.0]])
    # The second is where it was: the distances' own gradient there is zero over zero.
    near = old[0] + jnp.asarray([[1e-3], [0.0]]), old[1] + jnp.asarray([[1e-3], [0.0]])
    mean, log_std = project(name, *near, *old, *BOUNDS)
    np.testing.assert_array_equal(mean, near[0])
    np.testing.assert_array_equal(log_std, near[1])
    jacobian = jax.jacobian(lambda near: project(name, *near, *old, *BOUNDS))(near)
    eye = np.eye(4).reshape(2, 2, 2, 2)
    for i in range(2):
        for j in range(2):
            np.testing.assert_array_equal(jacobian[i][j], eye * (i == j))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        for given in problems(3):
            weights = np.random.default_rng(1).normal(size=(2, 3))

            def value(mean, log_std, given=given, weights=weights):
                projected = project(name, mean, log_std, *given[2:], *BOUNDS)
                return sum(jnp.sum(w * x) for w, x in zip(weights, projected, strict=True))

            jax.test_util.check_grads(value, given[:2], order=1, modes=["fwd", "rev"], rtol=1e-5)


def unrolled(change, bound):
    """t by bisection of f(t) = bound, written out, with one step of Newton that carries gradients.

    f in t itself and not in its logarithm, as the paper writes it with η = 1 / t - 1.
    """
    def value(t, change, bound):
        precision = 1.0 + t * change
        return 0.5 * jnp.sum(1.0 / precision - 1.0 + jnp.log(precision)) - bound

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        over = value(middle, change, bound) > 0
        low, high = jnp.where(over, low, middle), jnp.where(over, middle, high)
    t = jax.lax.stop_gradient(high)
    slope = jax.lax.stop_gradient(jax.grad(value)(t, change, bound))
    return t - value(t, change, bound) / slope


def test_the_dual_and_its_gradient_are_those_of_a_solver_that_is_gone_through():
    from jtrust.trust_region.projections import _dual

    with jax.enable_x64(True):
        for seed in range(5):
            change = jnp.expm1(jax.random.normal(jax.random.key(seed), (4,), "float64"))
            bound = jnp.asarray(0.003)
            np.testing.assert_allclose(_dual(change, bound), unrolled(change, bound), rtol=1e-8)
            for ours, theirs in zip(
                jax.grad(_dual, (0, 1))(change, bound), jax.grad(unrolled, (0, 1))(change, bound),
                strict=True,
            ):
                np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spread", [1e-2, 1.0, 3.0])
@pytest.mark.parametrize("bound", [1e-5, 1e-3, 0.5])
def test_thousands_of_states_end_on_the_bound_in_float32(name, spread, bound):
    keys = jax.random.split(jax.random.key(0), 3)
    old_log_std = 0.5 * jax.random.normal(keys[0], (4000, 6))
    log_std = old_log_std + spread * jax.random.normal(keys[1], (4000, 6))
    mean = spread * jax.random.normal(keys[2], (4000, 6))
    zero = jnp.zeros_like(mean)
    layer = PROJECTIONS[name]
    projected = jax.jit(layer)(mean, log_std, zero, old_log_std, bound, bound)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in projected)
    # A logarithm near 1 in float32 says a change of 1e-3 to four digits.
    tolerance = 1e-3 if bound > 1e-4 else 1e-2
    before = layer.distance(mean, log_std, zero, old_log_std)
    after = layer.distance(*projected, zero, old_log_std)
    for first, last in zip(before, after, strict=True):
        np.testing.assert_allclose(last, np.minimum(first, bound), rtol=tolerance)
    gradient = jax.grad(
        lambda given: sum(map(jnp.sum, layer(*given, zero, old_log_std, bound, bound)))
    )((mean, log_std))
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in gradient)


@pytest.mark.parametrize("name", NAMES)
def test_bounds_of_each_state_and_nothing_to_the_old(name):
    given = [jnp.asarray(np.stack(x), jnp.float32) for x in zip(*problems(2), strict=True)]
    bounds = jnp.linspace(0.001, 0.05, 6), jnp.linspace(0.02, 0.001, 6)
    mapped = jax.vmap(functools.partial(project, name))(*given, *bounds)
    for one, other in zip(mapped, project(name, *given, *bounds), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    of_old = jax.grad(
        lambda old: sum(map(jnp.sum, project(name, *given[:2], *old, *bounds)))
    )(tuple(given[2:]))
    assert all(not np.any(x) for x in of_old)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_is_passed_on_in_its_state_alone(name):
    zero = jnp.zeros((3, 2))
    mean, log_std = project(name, zero.at[1, 0].set(jnp.nan), zero.at[1, 1].set(jnp.nan), zero,
                            zero, *BOUNDS)
    assert np.isnan(mean[1]).all() and np.isnan(log_std[1]).all()
    assert np.all(mean[::2] == 0) and np.all(log_std[::2] == 0)


@pytest.mark.parametrize(("name", "bounds", "said"), [
    ("kl", (0.0, 0.1), "mean_bound=0.0"), ("w2", (0.1, -1.0), "cov_bound=-1.0"),
    ("kl", (float("nan"), 0.1), "mean_bound=nan"), ("frob", (0.1, 0.1), "frobenius"),
    ("papi", (0.1, 0.1), "unknown projection"),
])
def test_what_will_not_do_is_one_line(name, bounds, said):
    zero = jnp.zeros((3, 2))
    with pytest.raises(jtrust.BadArgument, match=said) as error:
        project(name, zero, zero, zero, zero, *bounds)
    assert "\n" not in str(error.value)


def test_arrays_of_other_shapes_are_one_line():
    zero = jnp.zeros((3, 2))
    for given in ((zero, zero[0], zero, zero), (zero[0, 0],) * 4):
        with pytest.raises(jtrust.BadArgument, match="must be of one shape"):
            project("kl", *given, *BOUNDS)
