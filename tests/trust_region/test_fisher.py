"""Fisher-vector products against two dense matrices that are formed in other ways.

One is the Hessian of the mean KL divergence, by `jax.hessian` of the textbook formulas below on
one flat parameter vector; the other is the covariance of the score, E[∇log π ∇log πᵀ], exact for
a categorical policy and an average over samples for Gaussian ones.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from jtrust.distributions import Categorical, DiagonalGaussian, TanhGaussian
from jtrust.trust_region import fisher_operator, fisher_vector_product, in_state_blocks

pytestmark = pytest.mark.slow

INPUTS, HIDDEN, ACTIONS, STATES = 3, 4, 2, 6
HEADS = ["shared", "broadcast", "tanh", "by state", "categorical"]


def network(params, x):
    return jnp.tanh(x @ params["w1"] + params["b1"]) @ params["w2"] + params["b2"]


def make_params(head, dtype=jnp.float64, hidden=HIDDEN):
    rng = np.random.default_rng(0)
    outputs = {"categorical": 5, "by state": 2 * ACTIONS}.get(head, ACTIONS)
    params = {
        "w1": rng.normal(size=(INPUTS, hidden)),
        "b1": rng.normal(size=hidden),
        "w2": rng.normal(size=(hidden, outputs)) / 2,
        "b2": rng.normal(size=outputs) / 2,
    }
    if head in ("shared", "broadcast", "tanh"):
        params["log_std"] = rng.normal(size=ACTIONS) / 3 - 0.7
    return {name: jnp.asarray(value, dtype) for name, value in params.items()}


def states(dtype=jnp.float64, shape=(STATES,)):
    return jnp.asarray(np.random.default_rng(1).normal(size=(*shape, INPUTS)), dtype)


def make_distribution_fn(head, x):
    """params -> the policy at the states x."""

    def distribution(params):
        out = network(params, x)
        if head == "categorical":
            return Categorical(out)
        if head == "by state":
            return DiagonalGaussian(out[..., :ACTIONS], 0.5 * out[..., ACTIONS:] - 0.5)
        if head == "shared":
            return DiagonalGaussian(out, params["log_std"])
        log_std = jnp.broadcast_to(params["log_std"], out.shape)
        return (TanhGaussian if head == "tanh" else DiagonalGaussian)(out, log_std)

    return distribution


def textbook_kl(p, q):
    """D_KL(p || q) as books have it, without the package's own formulas."""
    if isinstance(p, Categorical):
        a, b = (d.logits - jax.nn.logsumexp(d.logits, -1, keepdims=True) for d in (p, q))
        return jnp.sum(jnp.exp(a) * (a - b), -1)
    variance, other = jnp.exp(2 * p.log_std), jnp.exp(2 * q.log_std)
    terms = q.log_std - p.log_std + (variance + (p.mean - q.mean) ** 2) / (2 * other) - 0.5
    return jnp.sum(terms, -1)


def dense_hessian(distribution_fn, params):
    """The Hessian of θ ↦ mean KL(π_params || π_θ) at params, [P, P]."""
    flat, unravel = ravel_pytree(params)
    old = distribution_fn(params)
    mean_kl = lambda theta: jnp.mean(textbook_kl(old, distribution_fn(unravel(theta))))  # noqa: E731
    return np.asarray(jax.jit(jax.hessian(mean_kl))(flat))


def dense_from_products(distribution_fn, params, damping=0.0):
    """The matrix whose columns are products with unit vectors, [P, P]."""
    flat, unravel = ravel_pytree(params)

    def column(v):
        return ravel_pytree(fisher_vector_product(distribution_fn, params, unravel(v), damping))[0]

    return np.asarray(jax.jit(jax.vmap(column))(jnp.eye(flat.size, dtype=flat.dtype)), np.float64).T


def random_like(params, seed):
    flat, unravel = ravel_pytree(params)
    return unravel(jnp.asarray(np.random.default_rng(seed).normal(size=flat.size), flat.dtype))


def flatten(tree):
    """All leaves in one numpy vector; unlike ravel_pytree it keeps float64 outside `enable_x64`."""
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def dot(a, b):
    return float(flatten(a) @ flatten(b))


@pytest.mark.parametrize("head", HEADS)
def test_the_products_are_those_of_the_hessian_of_the_mean_kl(head):
    with jax.enable_x64(True):
        params = make_params(head)
        policy = make_distribution_fn(head, states())
        matrix, hessian = dense_from_products(policy, params), dense_hessian(policy, params)
    np.testing.assert_allclose(matrix, hessian, rtol=1e-8, atol=1e-10 * np.abs(hessian).max())


@pytest.mark.parametrize("head", HEADS)
def test_float32_products_are_those_of_the_float64_hessian(head):
    with jax.enable_x64(True):
        hessian = dense_hessian(make_distribution_fn(head, states()), make_params(head))
    params = make_params(head, jnp.float32)
    matrix = dense_from_products(make_distribution_fn(head, states(jnp.float32)), params)
    np.testing.assert_allclose(matrix, hessian, rtol=0, atol=1e-5 * np.abs(hessian).max())


@pytest.mark.parametrize("head", ["shared", "categorical"])
def test_states_may_have_any_leading_axes(head):
    with jax.enable_x64(True):
        params, x = make_params(head), states(shape=(4, 3))
        vector = random_like(params, 2)
        grid = fisher_vector_product(make_distribution_fn(head, x), params, vector)
        flat = fisher_vector_product(
            make_distribution_fn(head, x.reshape(12, INPUTS)), params, vector
        )
        single = fisher_vector_product(make_distribution_fn(head, x[0, 0]), params, vector)
        alone = fisher_vector_product(make_distribution_fn(head, x[:1, 0]), params, vector)
    np.testing.assert_allclose(flatten(grid), flatten(flat), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(flatten(single), flatten(alone), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("count", [8192, 6000, 4099])  # blocks of 4096 and 3000; a prime, none
def test_blocks_of_states_give_the_product_of_all_at_once(head, count):
    params, x = make_params(head, jnp.float32), states(jnp.float32, (count,))
    vector = random_like(params, 2)

    def distribution(p, observation):
        return make_distribution_fn(head, observation)(p)

    blocked = fisher_vector_product(lambda p: in_state_blocks(distribution)(p, x), params, vector)
    whole = flatten(fisher_vector_product(lambda p: distribution(p, x), params, vector))
    np.testing.assert_allclose(flatten(blocked), whole, atol=1e-5 * np.abs(whole).max())
    loops = str(jax.make_jaxpr(in_state_blocks(distribution))(params, x)).count("scan[")
    assert loops == (count != 4099)


def test_categorical_products_are_those_of_the_covariance_of_the_score():
    with jax.enable_x64(True):
        params, x = make_params("categorical"), states()
        flat, unravel = ravel_pytree(params)

        def log_prob(theta, state, outcome):
            logits = network(unravel(theta), state)
            return logits[outcome] - jax.nn.logsumexp(logits)

        score = jax.jit(jax.grad(log_prob))
        covariance = np.zeros((flat.size, flat.size))
        for state in x:
            for outcome in range(5):
                gradient = np.asarray(score(flat, state, outcome))
                weight = math.exp(log_prob(flat, state, outcome)) / STATES
                covariance += weight * np.outer(gradient, gradient)
        matrix = dense_from_products(make_distribution_fn("categorical", x), params)
    np.testing.assert_allclose(matrix, covariance, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("head", ["shared", "by state", "tanh"])
def test_gaussian_products_are_those_of_the_covariance_of_the_score_of_samples(head):
    draws = 20_000
    with jax.enable_x64(True):
        params, x = make_params(head), states(shape=(3,))
        flat, unravel = ravel_pytree(params)

        def score(state, key):
            policy = make_distribution_fn(head, state)
            action = policy(params).sample(key)
            return jax.grad(lambda theta: policy(unravel(theta)).log_prob(action))(flat)

        keys = jax.random.split(jax.random.key(0), (3, draws))
        scores = jax.jit(jax.vmap(jax.vmap(score, (None, 0))))(x, keys).reshape(-1, flat.size)
        scores = np.asarray(scores)
        matrix = dense_from_products(make_distribution_fn(head, x), params)
    mean = scores.T @ scores / len(scores)
    square = (scores**2).T @ scores**2 / len(scores)
    standard_error = np.sqrt((square - mean**2) / len(scores))
    assert standard_error.max() < 0.05 * np.abs(matrix).max()
    np.testing.assert_array_less(np.abs(matrix - mean), 5 * standard_error + 1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_the_fisher_matrix_is_symmetric_and_positive_semidefinite(head):
    with jax.enable_x64(True):
        params = make_params(head)
        policy = make_distribution_fn(head, states())
        matrix = dense_from_products(policy, params)
        v, w = random_like(params, 3), random_like(params, 4)
        fv, fw = (fisher_vector_product(policy, params, u) for u in (v, w))
    scale = np.abs(matrix).max()
    assert dot(w, fv) == pytest.approx(dot(v, fw), rel=1e-10)
    assert dot(v, fv) > 0
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12 * scale)
    assert np.linalg.eigvalsh((matrix + matrix.T) / 2).min() > -1e-12 * scale


def test_float32_products_are_symmetric_to_rounding():
    params = make_params("shared", jnp.float32)
    policy = make_distribution_fn("shared", states(jnp.float32))
    v, w = random_like(params, 3), random_like(params, 4)
    fv, fw = (fisher_vector_product(policy, params, u) for u in (v, w))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(fv))
    assert dot(w, fv) == pytest.approx(dot(v, fw), rel=1e-4)


@pytest.mark.parametrize("head", ["tanh", "categorical"])
def test_products_are_linear_in_the_vector(head):
    with jax.enable_x64(True):
        params = make_params(head)
        policy = make_distribution_fn(head, states())
        v, w = random_like(params, 5), random_like(params, 6)
        mixed = jax.tree.map(lambda a, b: 2.5 * a - 0.3 * b, v, w)
        fv, fw, fm = (
            flatten(fisher_vector_product(policy, params, u, 0.1)) for u in (v, w, mixed)
        )
        zero = fisher_vector_product(policy, params, jax.tree.map(jnp.zeros_like, v), 0.1)
    np.testing.assert_allclose(fm, 2.5 * fv - 0.3 * fw, rtol=1e-9, atol=1e-11)
    assert not np.any(flatten(zero))


@pytest.mark.parametrize("damping", [0.0, 0.1, 3.0])
def test_damping_adds_a_multiple_of_the_vector(damping):
    with jax.enable_x64(True):
        params = make_params("shared")
        policy = make_distribution_fn("shared", states())
        plain = dense_from_products(policy, params)
        damped = dense_from_products(policy, params, jnp.asarray(damping))
    expected = plain + damping * np.eye(len(plain))
    np.testing.assert_allclose(damped, expected, rtol=1e-12, atol=1e-12)


def test_the_operator_gives_the_same_products_for_many_vectors():
    with jax.enable_x64(True):
        params = make_params("shared")
        policy = make_distribution_fn("shared", states())
        operator = fisher_operator(policy, params, 0.2)
        for seed in range(3):
            v = random_like(params, seed)
            expected = fisher_vector_product(policy, params, v, 0.2)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), operator(v), expected
            )


@pytest.mark.parametrize("head", ["shared", "categorical"])
def test_shards_with_equal_parts_of_the_states_give_the_product_of_the_whole(head):
    with jax.enable_x64(True):
        params, x = make_params(head), states()
        v = random_like(params, 7)

        def on_shard(part):
            return fisher_operator(make_distribution_fn(head, part), params, 0.1, "envs")(v)

        sharded = jax.vmap(on_shard, axis_name="envs")(x.reshape(3, 2, INPUTS))
        whole = fisher_vector_product(make_distribution_fn(head, x), params, v, 0.1)
    for part, expected in zip(jax.tree.leaves(sharded), jax.tree.leaves(whole), strict=True):
        for shard in part:
            np.testing.assert_allclose(shard, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("head", HEADS)
def test_the_quadratic_model_is_the_kl_divergence_to_first_order(head):
    with jax.enable_x64(True):
        params = make_params(head)
        policy = make_distribution_fn(head, states())
        direction = random_like(params, 8)
        curvature = dot(direction, fisher_vector_product(policy, params, direction))
        old = policy(params)

        @jax.jit
        def mean_kl(t):
            moved = jax.tree.map(lambda p, d: p + t * d, params, direction)
            return jnp.mean(old.kl_divergence(policy(moved)))

        steps = 1e-2 * 0.5 ** np.arange(6)
        errors = np.array([float(mean_kl(t)) / (0.5 * t**2 * curvature) - 1 for t in steps])
    assert abs(errors[-1]) < 1e-2
    np.testing.assert_allclose(errors[:-1] / errors[1:], 2.0, rtol=0.1)
    assert errors[-2] / errors[-1] == pytest.approx(2.0, rel=0.01)


def other_structures():
    params = make_params("shared", jnp.float32)
    without = {k: v for k, v in params.items() if k != "b1"}
    return {
        "a leaf missing": without,
        "a leaf too many": {**params, "b3": jnp.zeros(2)},
        "another name": {**without, "c1": params["b1"]},
        "another shape": {**params, "b1": params["b1"][:-1]},
        "a shape that broadcasts": {**params, "b1": jnp.ones(())},
        "transposed": {**params, "w1": params["w1"].T},
        "one array": ravel_pytree(params)[0],
        "a list": list(params.values()),
    }


@pytest.mark.parametrize("case", other_structures())
def test_a_vector_of_another_structure_is_refused(case):
    params = make_params("shared", jnp.float32)
    policy = make_distribution_fn("shared", states(jnp.float32))
    with pytest.raises(ValueError, match="structure"):
        fisher_vector_product(policy, params, other_structures()[case])


def largest_intermediate(jaxpr):
    """The most elements of any value computed in a jaxpr or in one nested in it."""
    largest = 0
    for equation in jaxpr.eqns:
        largest = max([largest, *(math.prod(v.aval.shape) for v in equation.outvars)])
        for parameter in jax.tree.leaves(equation.params, is_leaf=lambda p: hasattr(p, "eqns")):
            inner = getattr(parameter, "jaxpr", parameter)
            if hasattr(inner, "eqns"):
                largest = max(largest, largest_intermediate(inner))
    return largest


def test_no_matrix_of_the_size_of_the_fisher_matrix_is_formed():
    params = make_params("shared", jnp.float32, hidden=800)
    policy = make_distribution_fn("shared", states(jnp.float32))
    flat, unravel = ravel_pytree(params)
    assert flat.size > 4000
    product = jax.make_jaxpr(lambda v: fisher_vector_product(policy, params, v, 0.1))(params)
    assert largest_intermediate(product.jaxpr) <= flat.size * STATES
    # The same count does see the matrix where there is one.
    old = policy(params)
    mean_kl = lambda theta: jnp.mean(textbook_kl(old, policy(unravel(theta))))  # noqa: E731
    hessian = jax.make_jaxpr(jax.hessian(mean_kl))(flat)
    assert largest_intermediate(hessian.jaxpr) >= flat.size**2
