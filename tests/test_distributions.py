"""Distributions against scipy.stats, scipy.integrate.quad, numpy in float64 and sample averages.

None of the references shares code with `jtrust.distributions`. References are computed in float64
from the very float32 numbers that the implementation is given. Sample averages must lie within
five of their standard errors.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from jtrust.distributions import Categorical, DiagonalGaussian, TanhGaussian, kl_divergence

pytestmark = pytest.mark.slow

BATCH_SHAPES = [(), (5,), (3, 4)]
GAUSSIANS = [DiagonalGaussian, TanhGaussian]
SAMPLES = 100_000
# The largest rounding of a float32 divergence below zero; trust regions are around 1e-2.
ROUNDING = 1e-7


def draw(seed, *shape, scale=1.0, shift=0.0):
    normal = np.random.default_rng(seed).normal(size=shape)
    return (shift + scale * normal).astype(np.float32)


def double(x):
    return np.asarray(x, np.float64)


def random_gaussian(cls, seed, batch, actions=3):
    mean = draw(seed, *batch, actions, scale=0.7)
    log_std = draw(seed + 1000, *batch, actions, scale=0.4, shift=-0.5)
    return cls(jnp.asarray(mean), jnp.asarray(log_std))


def random_distribution(cls, seed, batch):
    if cls is Categorical:
        return Categorical(jnp.asarray(draw(seed, *batch, 4, scale=1.5)))
    return random_gaussian(cls, seed, batch)


def gaussian_kl(p, q):
    """The textbook formula for normal distributions, summed over the last axis, in float64."""
    (m, s), (n, r) = ((double(d.mean), double(d.log_std)) for d in (p, q))
    return np.sum(r - s + (np.exp(2 * s) + (m - n) ** 2) / (2 * np.exp(2 * r)) - 0.5, axis=-1)


def categorical_kl(p_logits, q_logits):
    log_p, log_q = (scipy.special.log_softmax(double(x), axis=-1) for x in (p_logits, q_logits))
    return np.sum(scipy.special.rel_entr(np.exp(log_p), np.exp(log_q)), axis=-1)


def tanh_normal_logpdf(x, mean, std):
    """log density of tanh(u), u normal: the change of variables written out."""
    return scipy.stats.norm.logpdf(np.arctanh(x), mean, std) - np.log((1 - x) * (1 + x))


def integrate_squashed(f, mean, std):
    """The integral of f over (-1, 1), split where tanh of a normal keeps its mass."""
    edges = np.tanh(np.clip(mean + std * np.linspace(-8, 8, 9), -14, 14))
    limits = np.unique(np.concatenate([[-1 + 1e-12], edges, [1 - 1e-12]]))
    return sum(
        scipy.integrate.quad(f, a, b, epsabs=1e-11, limit=200)[0]
        for a, b in itertools.pairwise(limits)
    )


def assert_mean_is(samples, expected):
    """The average over the first axis is `expected`, within five standard errors."""
    samples = double(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(axis=0) - double(expected)), 5 * error + 1e-6)


# Log densities


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_gaussian_log_prob_is_scipys(batch):
    p = random_gaussian(DiagonalGaussian, 0, batch)
    x = draw(1, *batch, 3)
    expected = scipy.stats.norm.logpdf(x, double(p.mean), np.exp(double(p.log_std))).sum(-1)
    assert p.log_prob(x).shape == batch
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_tanh_gaussian_log_prob_is_the_change_of_variables(batch):
    p = random_gaussian(TanhGaussian, 0, batch)
    x = np.tanh(draw(1, *batch, 3))
    terms = tanh_normal_logpdf(double(x), double(p.mean), np.exp(double(p.log_std)))
    assert p.log_prob(x).shape == batch
    np.testing.assert_allclose(p.log_prob(x), terms.sum(-1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_categorical_log_prob_is_scipys(batch):
    p = random_distribution(Categorical, 0, batch)
    for outcome in range(4):
        x = np.full(batch, outcome)
        expected = scipy.special.log_softmax(double(p.logits), axis=-1)[..., outcome]
        assert p.log_prob(x).shape == batch
        np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (0.8, 0.3), (-0.5, 1.0)])
def test_tanh_gaussian_density_integrates_to_one(mean, std):
    with jax.enable_x64(True):
        p = TanhGaussian(jnp.array([mean]), jnp.log(jnp.array([std])))
        density = jax.jit(lambda x: jnp.exp(p.log_prob(x[None])))
        total = integrate_squashed(lambda x: float(density(x)), mean, std)
    assert total == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("mean", [0.0, 3.0, -20.0])
def test_tanh_gaussian_log_prob_and_its_gradient_are_finite_at_saturated_actions(mean):
    x = jnp.array([-1.0, np.nextafter(np.float32(1), np.float32(0)), 1.0])
    start = TanhGaussian(jnp.full(3, mean), jnp.zeros(3))
    value, gradient = jax.value_and_grad(lambda p: p.log_prob(x))(start)
    assert np.isfinite(value)
    assert np.isfinite(gradient.mean).all() and np.isfinite(gradient.log_std).all()


# Entropies


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_gaussian_entropy_is_scipys(batch):
    p = random_gaussian(DiagonalGaussian, 3, batch)
    expected = scipy.stats.norm.entropy(double(p.mean), np.exp(double(p.log_std))).sum(-1)
    assert p.entropy().shape == batch
    np.testing.assert_allclose(p.entropy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_categorical_entropy_is_scipys(batch):
    p = random_distribution(Categorical, 3, batch)
    expected = scipy.stats.entropy(scipy.special.softmax(double(p.logits), axis=-1), axis=-1)
    assert p.entropy().shape == batch
    np.testing.assert_allclose(p.entropy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("std", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("mean", [0.0, 0.7, -2.5])
def test_tanh_gaussian_entropy_is_the_integral(mean, std):
    def integrand(x):
        log_p = tanh_normal_logpdf(x, mean, std)
        return -np.exp(log_p) * log_p

    p = TanhGaussian(jnp.array([mean]), jnp.log(jnp.array([std])))
    expected = integrate_squashed(integrand, mean, std)
    assert float(p.entropy()) == pytest.approx(expected, abs=3e-4)


def test_tanh_gaussian_entropy_sums_over_dimensions():
    p = random_gaussian(TanhGaussian, 4, (5,))
    parts = [TanhGaussian(p.mean[:, i : i + 1], p.log_std[:, i : i + 1]) for i in range(3)]
    assert p.entropy().shape == (5,)
    np.testing.assert_allclose(p.entropy(), sum(q.entropy() for q in parts), rtol=1e-5, atol=1e-6)


def test_uniform_categorical_has_entropy_log_k():
    assert float(Categorical(jnp.full(7, 3.0)).entropy()) == pytest.approx(np.log(7), rel=1e-6)


# Divergences


@pytest.mark.parametrize("batch", BATCH_SHAPES)
@pytest.mark.parametrize("cls", GAUSSIANS)
def test_gaussian_kl_is_the_textbook_formula(cls, batch):
    p, q = random_gaussian(cls, 5, batch), random_gaussian(cls, 6, batch)
    assert p.kl_divergence(q).shape == batch
    np.testing.assert_allclose(p.kl_divergence(q), gaussian_kl(p, q), rtol=1e-5, atol=1e-6)


def test_gaussian_kl_is_the_integral():
    p, q = random_gaussian(DiagonalGaussian, 7, ()), random_gaussian(DiagonalGaussian, 8, ())
    expected = 0.0
    for i in range(3):
        m, s, n, r = (float(x[i]) for x in (p.mean, p.log_std, q.mean, q.log_std))
        first, second = scipy.stats.norm(m, np.exp(s)), scipy.stats.norm(n, np.exp(r))
        expected += scipy.integrate.quad(
            lambda x, a=first, b=second: a.pdf(x) * (a.logpdf(x) - b.logpdf(x)),
            m - 12 * np.exp(s), m + 12 * np.exp(s), epsabs=1e-11,
        )[0]
    assert float(p.kl_divergence(q)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("m", "s", "n", "r"), [(0.0, 0.5, 0.3, 0.7), (0.6, 0.4, -0.2, 0.9), (-0.5, 1.0, -0.5, 0.8)]
)
def test_tanh_gaussian_kl_is_the_integral_over_squashed_actions(m, s, n, r):
    def integrand(x):
        log_p, log_q = tanh_normal_logpdf(x, m, s), tanh_normal_logpdf(x, n, r)
        return np.exp(log_p) * (log_p - log_q)

    p = TanhGaussian(jnp.array([m]), jnp.log(jnp.array([s])))
    q = TanhGaussian(jnp.array([n]), jnp.log(jnp.array([r])))
    assert float(p.kl_divergence(q)) == pytest.approx(integrate_squashed(integrand, m, s), rel=1e-4)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_categorical_kl_is_the_plain_sum(batch):
    p, q = random_distribution(Categorical, 5, batch), random_distribution(Categorical, 6, batch)
    assert p.kl_divergence(q).shape == batch
    expected = categorical_kl(p.logits, q.logits)
    np.testing.assert_allclose(p.kl_divergence(q), expected, rtol=1e-5, atol=1e-6)


def test_categorical_kl_of_far_apart_logits_is_the_plain_sum():
    p, q = jnp.array([200.0, 0.0, -200.0]), jnp.array([-200.0, 0.0, 200.0])
    kl, gradients = jax.value_and_grad(
        lambda a, b: Categorical(a).kl_divergence(Categorical(b)), (0, 1)
    )(p, q)
    assert float(kl) == pytest.approx(400.0, rel=1e-6)
    assert np.isfinite(np.stack(gradients)).all()


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_discrete_kl_is_the_plain_sum(batch):
    p, q = (scipy.special.softmax(draw(s, *batch, 6, scale=2), axis=-1) for s in (9, 10))
    assert kl_divergence(p, q).shape == batch
    expected = scipy.special.rel_entr(double(p), double(q)).sum(-1)
    np.testing.assert_allclose(kl_divergence(p, q), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("p", "q", "expected"),
    [
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5], np.log(2)),
        ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0], 0.5 * np.log(2) + 0.5 * np.log(2 / 3)),
        ([0.5, 0.5], [1.0, 0.0], np.inf),
        ([1.0, 0.0], [0.0, 1.0], np.inf),
        ([1.0, 0.0], [1.0, 0.0], 0.0),
    ],
    ids=["p zero", "both zero", "q zero", "disjoint", "point mass"],
)
def test_discrete_kl_at_zero_probabilities(p, q, expected):
    np.testing.assert_allclose(kl_divergence(jnp.array(p), jnp.array(q)), expected, rtol=1e-6)


def test_discrete_kl_keeps_zeros_of_one_row_to_that_row():
    p = jnp.array([[0.5, 0.5], [0.5, 0.5]])
    q = jnp.array([[1.0, 0.0], [0.25, 0.75]])
    expected = [np.inf, 0.5 * np.log(2) + 0.5 * np.log(2 / 3)]
    np.testing.assert_allclose(kl_divergence(p, q), expected, rtol=1e-6)


# Probabilities sum to one, so a gradient counts up to a number common to all outcomes.


def test_discrete_kl_has_the_gradient_of_the_sum_where_it_is_finite():
    p, q = np.array([0.2, 0.8, 0.0]), np.array([0.4, 0.6, 0.0])
    by_p, by_q = jax.grad(kl_divergence, (0, 1))(jnp.array(p), jnp.array(q))
    assert np.isfinite(by_p).all() and np.isfinite(by_q).all()
    assert float(by_p[1] - by_p[0]) == pytest.approx(np.log(0.8 / 0.6) - np.log(0.5), rel=1e-5)
    assert float(by_q[1] - by_q[0]) == pytest.approx(0.5 - 0.8 / 0.6, rel=1e-5)


def test_discrete_kl_of_an_impossible_outcome_has_a_finite_gradient():
    p, q = jnp.array([0.5, 0.5, 0.0]), jnp.array([0.25, 0.5, 0.25])
    by_p, by_q = jax.grad(kl_divergence, (0, 1))(p, q)
    assert np.isfinite(by_p).all()
    np.testing.assert_allclose(by_q - by_q[2], [-2.0, -1.0, 0.0], rtol=1e-6)


@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_kl_to_itself_is_zero_and_stationary(cls):
    p = random_distribution(cls, 11, (5,))
    np.testing.assert_allclose(p.kl_divergence(p), np.zeros(5), atol=1e-12)
    gradient = jax.grad(lambda q: jnp.sum(p.kl_divergence(q)))(p)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, np.zeros_like(leaf), atol=1e-6)


def test_discrete_kl_to_itself_is_zero():
    p = scipy.special.softmax(draw(12, 5, 6, scale=2), axis=-1)
    np.testing.assert_array_equal(kl_divergence(p, p), np.zeros(5))


def signs(seed, *shape):
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=shape)


@pytest.mark.parametrize("cls", GAUSSIANS)
@pytest.mark.parametrize("difference", [1e-3, 1e-4])
def test_gaussian_kl_of_nearly_equal_policies_keeps_its_relative_accuracy(cls, difference):
    p = random_gaussian(cls, 13, (200,))
    q = cls(
        p.mean + jnp.asarray(difference * signs(14, 200, 3), jnp.float32),
        p.log_std + jnp.asarray(difference * signs(15, 200, 3), jnp.float32),
    )
    np.testing.assert_allclose(p.kl_divergence(q), gaussian_kl(p, q), rtol=1e-2)


@pytest.mark.parametrize("difference", [1e-3, 1e-4])
def test_gaussian_kl_of_nearly_equal_deviations_keeps_its_relative_accuracy(difference):
    p = random_gaussian(DiagonalGaussian, 13, (200,))
    change = jnp.asarray(difference * signs(15, 200, 3), jnp.float32)
    q = DiagonalGaussian(p.mean, p.log_std + change)
    np.testing.assert_allclose(p.kl_divergence(q), gaussian_kl(p, q), rtol=1e-2)


@pytest.mark.parametrize("difference", [1e-3, 1e-4])
def test_categorical_kl_of_nearly_equal_policies_keeps_its_relative_accuracy(difference):
    p = draw(16, 200, 6)
    # Alternate signs: a change common to all logits would be no change at all.
    q = p + (difference * np.array([1, -1, 1, -1, 1, -1])).astype(np.float32)
    kl = Categorical(jnp.asarray(p)).kl_divergence(Categorical(jnp.asarray(q)))
    np.testing.assert_allclose(kl, categorical_kl(p, q), rtol=2e-2)


@pytest.mark.parametrize("difference", [1e-3, 1e-4])
def test_discrete_kl_of_nearly_equal_probabilities_keeps_its_relative_accuracy(difference):
    p = scipy.special.softmax(double(draw(17, 200, 6)), axis=-1)
    q = p * (1 + difference * np.array([1, -1, 1, -1, 1, -1]))
    q /= q.sum(-1, keepdims=True)
    expected = scipy.special.rel_entr(p, q).sum(-1)
    kl = kl_divergence(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    np.testing.assert_allclose(kl, expected, rtol=2e-2)


def test_discrete_kl_of_nearly_equal_probabilities_is_accurate_in_float64():
    p = scipy.special.softmax(double(draw(17, 200, 6)), axis=-1)
    q = p * (1 + 1e-4 * np.array([1, -1, 1, -1, 1, -1]))
    q /= q.sum(-1, keepdims=True)
    with jax.enable_x64(True):
        kl = kl_divergence(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(kl, scipy.special.rel_entr(p, q).sum(-1), rtol=1e-6)


def test_categorical_with_ruled_out_outcomes():
    p, q = np.array([0.0, 1.0, -np.inf]), np.array([0.5, 1.0, 2.0])
    first, second = Categorical(jnp.asarray(p)), Categorical(jnp.asarray(q))
    possible = scipy.special.softmax(p[:2])
    assert float(first.entropy()) == pytest.approx(scipy.stats.entropy(possible), rel=1e-6)
    assert float(first.log_prob(2)) == -np.inf
    expected = np.sum(possible * np.log(possible / scipy.special.softmax(q)[:2]))
    assert float(first.kl_divergence(second)) == pytest.approx(expected, rel=1e-6)
    assert float(second.kl_divergence(first)) == np.inf
    assert float(first.kl_divergence(first)) == 0.0


def test_categorical_gradients_are_finite_with_ruled_out_outcomes():
    p, q = jnp.array([0.0, 1.0, -jnp.inf]), jnp.array([0.5, -1.0, -jnp.inf])
    kl = jax.grad(lambda a, b: Categorical(a).kl_divergence(Categorical(b)), (0, 1))(p, q)
    entropy = jax.grad(lambda a: Categorical(a).entropy())(p)
    expected = jax.grad(lambda b: -jnp.sum(jax.nn.softmax(p[:2]) * jax.nn.log_softmax(b)))(q[:2])
    assert np.isfinite(np.stack([*kl, entropy])).all()
    np.testing.assert_allclose(kl[1], [*expected, 0.0], atol=1e-6)


@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_kl_goes_from_self_to_other(cls):
    p, q = random_distribution(cls, 18, ()), random_distribution(cls, 19, ())
    if cls is Categorical:
        forward, backward = categorical_kl(p.logits, q.logits), categorical_kl(q.logits, p.logits)
    else:
        forward, backward = gaussian_kl(p, q), gaussian_kl(q, p)
    assert abs(forward - backward) > 0.01
    assert float(p.kl_divergence(q)) == pytest.approx(forward, rel=1e-4)


def floats32(low, high, size=4):
    elements = st.floats(low, high, width=32)
    return hnp.arrays(np.float32, size, elements=elements)


@given(floats32(-5, 5), floats32(-3, 2), floats32(-5, 5), floats32(-3, 2))
@settings(deadline=None, max_examples=60)
def test_gaussian_kl_is_not_negative(m, s, n, r):
    assert float(DiagonalGaussian(m, s).kl_divergence(DiagonalGaussian(n, r))) >= -ROUNDING


@given(floats32(-30, 30), floats32(-30, 30))
@settings(deadline=None, max_examples=60)
def test_categorical_kl_is_not_negative(a, b):
    kl = Categorical(jnp.asarray(a)).kl_divergence(Categorical(jnp.asarray(b)))
    assert float(kl) >= -ROUNDING


@given(*2 * [hnp.arrays(np.int64, 5, elements=st.integers(0, 1000)).filter(np.any)])
@settings(deadline=None, max_examples=60)
def test_discrete_kl_is_not_negative_and_is_the_plain_sum(a, b):
    p, q = a / a.sum(), b / b.sum()
    with jax.enable_x64(True):
        kl = float(kl_divergence(jnp.asarray(p), jnp.asarray(q)))
    assert kl >= -1e-14
    np.testing.assert_allclose(kl, scipy.special.rel_entr(p, q).sum(), rtol=1e-9, atol=1e-14)


# Samples


@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_entropy_is_the_mean_surprise_of_samples(cls):
    p = random_distribution(cls, 20, (2,))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), SAMPLES))
    assert_mean_is(-jax.vmap(p.log_prob)(samples), p.entropy())


@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_kl_is_the_mean_log_ratio_of_samples(cls):
    p, q = random_distribution(cls, 21, (2,)), random_distribution(cls, 22, (2,))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(1), SAMPLES))
    ratios = jax.vmap(lambda x: p.log_prob(x) - q.log_prob(x))(samples)
    assert_mean_is(ratios, p.kl_divergence(q))


def test_gaussian_samples_have_its_mean_and_deviation():
    p = random_gaussian(DiagonalGaussian, 23, (2,))
    samples = double(jax.vmap(p.sample)(jax.random.split(jax.random.key(2), SAMPLES)))
    assert_mean_is(samples, p.mean)
    assert_mean_is((samples - double(p.mean)) ** 2, np.exp(2 * double(p.log_std)))


@pytest.mark.parametrize("threshold", [-0.5, 0.0, 0.8])
def test_tanh_gaussian_samples_follow_the_squashed_normal_law(threshold):
    p = random_gaussian(TanhGaussian, 24, (2,))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(3), SAMPLES))
    mean, std = double(p.mean), np.exp(double(p.log_std))
    expected = scipy.stats.norm.cdf(np.arctanh(threshold), mean, std)
    assert_mean_is(samples < threshold, expected)


def test_categorical_samples_follow_its_probabilities():
    p = random_distribution(Categorical, 25, (2,))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(4), SAMPLES))
    frequencies = np.asarray(samples)[..., None] == np.arange(4)
    assert_mean_is(frequencies, scipy.special.softmax(double(p.logits), axis=-1))


def test_categorical_never_samples_a_ruled_out_outcome():
    p = Categorical(jnp.array([0.0, -jnp.inf, 1.0]))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(5), 1000))
    assert set(np.asarray(samples).tolist()) == {0, 2}


def test_tanh_gaussian_samples_lie_inside_the_unit_interval():
    p = TanhGaussian(jnp.array([0.0, 1.0, -2.0]), jnp.array([-1.0, 0.0, 0.3]))
    samples = np.asarray(jax.vmap(p.sample)(jax.random.split(jax.random.key(6), 10_000)))
    assert np.abs(samples).max() < 1


def test_saturated_tanh_gaussian_samples_have_finite_log_prob():
    p = TanhGaussian(jnp.array([20.0, -20.0]), jnp.zeros(2))
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(7), 1000))
    assert np.abs(samples).max() <= 1
    assert np.isfinite(jax.vmap(p.log_prob)(samples)).all()


# Modes, Fisher information, batches


def test_mode_is_the_most_probable_point():
    gaussian = random_gaussian(DiagonalGaussian, 26, (5,))
    squashed = TanhGaussian(gaussian.mean, gaussian.log_std)
    categorical = random_distribution(Categorical, 26, (5,))
    np.testing.assert_array_equal(gaussian.mode(), gaussian.mean)
    np.testing.assert_allclose(squashed.mode(), np.tanh(double(gaussian.mean)), rtol=1e-6)
    np.testing.assert_array_equal(categorical.mode(), np.argmax(categorical.logits, axis=-1))


@pytest.mark.parametrize("cls", GAUSSIANS)
def test_gaussian_fisher_is_diagonal_with_inverse_variance_and_two(cls):
    p, tangent = random_gaussian(cls, 27, (5,)), random_gaussian(cls, 28, (5,))
    result = p.fisher(tangent)
    expected = double(tangent.mean) / np.exp(2 * double(p.log_std))
    np.testing.assert_allclose(result.mean, expected, rtol=1e-5)
    np.testing.assert_allclose(result.log_std, 2 * double(tangent.log_std), rtol=1e-6)


def test_categorical_fisher_is_the_covariance_of_the_outcome():
    p, tangent = random_distribution(Categorical, 29, ()), random_distribution(Categorical, 30, ())
    probs = scipy.special.softmax(double(p.logits))
    matrix = np.diag(probs) - np.outer(probs, probs)
    result = p.fisher(tangent).logits
    np.testing.assert_allclose(result, matrix @ double(tangent.logits), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_batch_shape_is_the_leading_axes_of_everything(cls, batch):
    p = random_distribution(cls, 31, batch)
    event = () if cls is Categorical else (3,)
    sample = p.sample(jax.random.key(0))
    assert p.batch_shape == batch
    assert sample.shape == p.mode().shape == batch + event
    assert p.log_prob(sample).shape == p.entropy().shape == p.kl_divergence(p).shape == batch


@pytest.mark.parametrize("cls", [*GAUSSIANS, Categorical])
def test_vmap_over_the_pytree_is_the_batch(cls):
    p, q = random_distribution(cls, 32, (5,)), random_distribution(cls, 33, (5,))
    x = p.mode()
    for function, arguments in [
        (lambda d, y: d.log_prob(y), (p, x)),
        (lambda d: d.entropy(), (p,)),
        (lambda d: d.mode(), (p,)),
        (lambda d, e: d.kl_divergence(e), (p, q)),
    ]:
        np.testing.assert_allclose(
            jax.vmap(function)(*arguments), function(*arguments), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("cls", GAUSSIANS)
@pytest.mark.parametrize("shape", [(3,), (1,), (), (5, 1), (5, 3), (1, 3)])
def test_log_std_broadcasts(cls, shape):
    mean, log_std = draw(34, 5, 3), draw(35, *shape, scale=0.3)
    p, full = cls(mean, log_std), cls(mean, np.broadcast_to(log_std, (5, 3)))
    q = cls(draw(36, 5, 3), draw(37, *shape, scale=0.3))
    x = full.sample(jax.random.key(0))
    assert p.batch_shape == (5,)
    assert all(leaf.shape == (5, 3) for leaf in jax.tree.leaves(p.broadcast()))
    np.testing.assert_array_equal(p.sample(jax.random.key(0)), x)
    np.testing.assert_allclose(p.log_prob(x), full.log_prob(x), rtol=1e-6)
    np.testing.assert_allclose(p.entropy(), full.entropy(), rtol=1e-6)
    np.testing.assert_allclose(
        p.kl_divergence(q), gaussian_kl(p.broadcast(), q.broadcast()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("cls", GAUSSIANS)
def test_a_shared_mean_takes_the_batch_of_log_std(cls):
    p = cls(jnp.array([0.2, -0.1]), jnp.asarray(draw(38, 5, 2)))
    sample = p.sample(jax.random.key(0))
    assert p.batch_shape == (5,)
    assert sample.shape == p.mode().shape == (5, 2)
    assert len(np.unique(sample)) == 10
