"""Conjugate gradients against numpy.linalg.solve and scipy.sparse.linalg.cg.

In a precision ε a solution of a system with condition κ can be had to a relative error of about
κ ε, and the tests ask for no more: that is 1e-5 at κ = 100 in float32, and at κ = 1e6 nothing but
a small residual.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from jtrust.trust_region import conjugate_gradient

FLOAT32, FLOAT64 = np.finfo(np.float32).eps, np.finfo(np.float64).eps


def system(seed, size, condition):
    """A symmetric positive definite matrix with eigenvalues from 1/condition to 1, and b, ‖b‖=1."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    matrix = basis * np.geomspace(1.0, 1.0 / condition, size) @ basis.T
    b = rng.normal(size=size)
    return (matrix + matrix.T) / 2, b / np.linalg.norm(b)


def solve(matrix, b, iterations, dtype=jnp.float64):
    with jax.enable_x64(True):
        a, b = jnp.asarray(matrix, dtype), jnp.asarray(b, dtype)
        x, residual = conjugate_gradient(lambda v: a @ v, b, iterations)
        assert x.dtype == residual.dtype == dtype
        return np.asarray(x, np.float64), float(residual)


def relative_error(x, expected):
    return np.linalg.norm(x - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_float64_solutions_are_as_good_as_the_condition_allows(condition):
    matrix, b = system(0, 20, condition)
    x, residual = solve(matrix, b, 200)
    assert relative_error(x, np.linalg.solve(matrix, b)) < 10 * condition * FLOAT64
    assert residual < 1e-9


@pytest.mark.parametrize("condition", [1e2, 1e3, 1e4])
def test_float32_solutions_are_as_good_as_the_condition_allows(condition):
    matrix, b = system(1, 20, condition)
    x, _ = solve(matrix, b, 200, jnp.float32)
    assert relative_error(x, np.linalg.solve(matrix, b)) < 10 * condition * FLOAT32


def test_float32_at_condition_1e6_still_gives_a_residual_of_a_few_percent():
    matrix, b = system(2, 20, 1e6)
    x, _ = solve(matrix, b, 400, jnp.float32)
    assert np.linalg.norm(b - matrix @ x) < 0.1


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("iterations", [1, 3, 8])
def test_its_iterates_are_scipys(condition, iterations):
    matrix, b = system(3, 20, condition)
    x, _ = solve(matrix, b, iterations)
    expected, _ = scipy.sparse.linalg.cg(matrix, b, rtol=0.0, atol=0.0, maxiter=iterations)
    # Iterates part later on, as rounding grows: two ways to write the recursion round differently.
    assert relative_error(x, expected) < 1e-8


@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("iterations", [1, 5, 10, 20])
def test_the_residual_norm_is_the_true_one_in_float64(condition, iterations):
    matrix, b = system(4, 20, condition)
    x, residual = solve(matrix, b, iterations)
    assert residual == pytest.approx(np.linalg.norm(b - matrix @ x), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("condition", "iterations"), [(1e2, 10), (1e4, 10), (1e6, 10)])
def test_the_residual_norm_is_the_true_one_in_float32(condition, iterations):
    matrix, b = system(5, 20, condition)
    x, residual = solve(matrix, b, iterations, jnp.float32)
    # The recursion drifts from b - A x by rounding in proportion to ‖A‖ ‖x‖.
    drift = 10 * FLOAT32 * np.linalg.norm(x)
    assert residual == pytest.approx(np.linalg.norm(b - matrix @ x), rel=1e-3, abs=drift)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_as_many_iterations_as_dimensions_solve_exactly(size):
    matrix, b = system(6, size, 30.0)
    x, residual = solve(matrix, b, size)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), rtol=1e-9, atol=1e-10)
    assert residual < 1e-9


def test_as_many_iterations_as_distinct_eigenvalues_solve_exactly():
    rng = np.random.default_rng(7)
    basis = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    matrix, b = basis * np.repeat([1.0, 2.0, 5.0], 4) @ basis.T, rng.normal(size=12)
    np.testing.assert_allclose(solve(matrix, b, 3)[0], np.linalg.solve(matrix, b), rtol=1e-9)
    assert relative_error(solve(matrix, b, 2)[0], np.linalg.solve(matrix, b)) > 1e-3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_iterations_after_convergence_do_no_harm(dtype):
    matrix, b = system(8, 6, 10.0)
    x, residual = solve(matrix, b, 500, dtype)
    eps = float(jnp.finfo(dtype).eps)
    assert relative_error(x, np.linalg.solve(matrix, b)) < 100 * eps
    assert residual < 100 * eps


def test_iterations_after_an_exact_solution_change_nothing():
    b = np.array([1.0, 0.0, -2.0])
    for iterations in (1, 2, 50):
        x, residual = solve(2 * np.eye(3), b, iterations, jnp.float32)
        np.testing.assert_array_equal(x, b / 2)
        assert residual == 0.0


def test_a_right_hand_side_of_zero_gives_zero():
    x, residual = solve(system(9, 5, 10.0)[0], np.zeros(5), 10, jnp.float32)
    np.testing.assert_array_equal(x, np.zeros(5))
    assert residual == 0.0


@pytest.mark.parametrize(
    "eigenvalues",
    [[1.0, 2.0, 0.0, 0.0], [0.0] * 4, [1.0, 2.0, -3.0, 0.5], [-1.0] * 4, [1.0, -1.0, 1.0, -1.0]],
    ids=["singular", "zero", "indefinite", "negative", "balanced"],
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_matrices_that_are_not_positive_definite_give_finite_results(eigenvalues, dtype):
    rng = np.random.default_rng(10)
    basis = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    x, residual = solve(basis * np.array(eigenvalues) @ basis.T, np.ones(4), 50, dtype)
    assert np.isfinite(x).all() and np.isfinite(residual)


def test_a_direction_of_no_positive_curvature_is_not_followed():
    x, residual = solve(-np.eye(3), np.ones(3), 5)
    np.testing.assert_array_equal(x, np.zeros(3))
    assert residual == pytest.approx(np.sqrt(3.0))


def test_a_singular_but_consistent_system_is_solved():
    matrix = np.diag([1.0, 2.0, 4.0, 0.0])
    x, residual = solve(matrix, np.array([1.0, 1.0, 1.0, 0.0]), 4)
    np.testing.assert_allclose(x, [1.0, 0.5, 0.25, 0.0], rtol=1e-12, atol=1e-12)
    assert residual < 1e-12


def test_pytrees_are_solved_as_one_vector():
    matrix, b = system(11, 7, 20.0)
    with jax.enable_x64(True):
        a = jnp.asarray(matrix)

        def split(flat):
            return {"w": flat[:6].reshape(2, 3), "b": (flat[6],)}

        def matvec(tree):
            return split(a @ jnp.concatenate([tree["w"].ravel(), tree["b"][0][None]]))

        x, residual = conjugate_gradient(matvec, split(jnp.asarray(b)), 7)
        expected = split(np.linalg.solve(matrix, b))
    assert jax.tree.structure(x) == jax.tree.structure(expected)
    assert residual.shape == ()
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=1e-9, atol=1e-10), x, expected)


@pytest.mark.parametrize("iterations", [0, -3, True, False, 2.5, 10.0, "10", None])
def test_iterations_must_be_a_whole_number_from_one_up(iterations):
    with pytest.raises(ValueError, match="iterations"):
        conjugate_gradient(lambda v: v, jnp.ones(3), iterations)


@pytest.mark.parametrize("iterations", [1, 4, 25])
def test_the_matrix_is_applied_exactly_as_often_as_asked(iterations):
    calls = []

    def matvec(v):
        jax.debug.callback(lambda: calls.append(1))
        return 2.0 * v

    jax.block_until_ready(jax.jit(lambda b: conjugate_gradient(matvec, b, iterations))(jnp.ones(3)))
    jax.effects_barrier()
    assert len(calls) == iterations


def test_the_trip_count_is_fixed_when_compiled():
    jaxpr = jax.make_jaxpr(lambda b: conjugate_gradient(lambda v: 2.0 * v, b, 9))(jnp.ones(3))
    loops = [e for e in jaxpr.jaxpr.eqns if e.primitive.name in ("scan", "while")]
    assert [(e.primitive.name, e.params["length"]) for e in loops] == [("scan", 9)]


def test_it_works_under_jit_and_vmap():
    systems = [system(seed, 5, 10.0) for seed in range(3)]
    with jax.enable_x64(True):
        matrices, bs = (jnp.stack([jnp.asarray(s[i]) for s in systems]) for i in (0, 1))
        solver = jax.jit(jax.vmap(lambda a, b: conjugate_gradient(lambda v: a @ v, b, 5)))
        x, _ = solver(matrices, bs)
    expected = [np.linalg.solve(a, b) for a, b in systems]
    np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-10)
