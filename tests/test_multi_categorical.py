"""Products of categoricals, and actions in bins, against scipy in float64, loops and samples.

References are computed from the very float32 numbers that the implementation is given, one
dimension after another.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

import jtrust
from jtrust.distributions import Categorical, MultiCategorical

DIMENSIONS, OUTCOMES = 3, 4
BATCH_SHAPES = [(), (5,), (3, 4)]


def draw(seed, *shape, scale=1.5):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def random_logits(seed, batch):
    return draw(seed, *batch, DIMENSIONS, OUTCOMES)


def by_dimension(f, batch, *arrays):
    """Σ_a f(x[..., a, :], ...) by loops, [...]."""
    out = np.zeros(batch)
    for index in np.ndindex(batch):
        for a in range(DIMENSIONS):
            out[index] += f(*(np.asarray(x, np.float64)[index][a] for x in arrays))
    return out


def probabilities(logits):
    return scipy.special.softmax(np.asarray(logits, np.float64), axis=-1)


@pytest.mark.parametrize("batch", BATCH_SHAPES)
def test_log_prob_entropy_and_kl_are_sums_over_dimensions(batch):
    logits, others = random_logits(0, batch), random_logits(1, batch)
    p, q = MultiCategorical(jnp.asarray(logits)), MultiCategorical(jnp.asarray(others))
    x = np.random.default_rng(2).integers(0, OUTCOMES, (*batch, DIMENSIONS))
    chosen = np.take_along_axis(scipy.special.log_softmax(logits.astype(float), -1), x[..., None],
                                -1)[..., 0].sum(-1)
    entropy = by_dimension(lambda z: scipy.stats.entropy(probabilities(z)), batch, logits)
    kl = by_dimension(
        lambda a, b: scipy.stats.entropy(probabilities(a), probabilities(b)), batch, logits, others
    )
    assert p.batch_shape == p.broadcast().batch_shape == batch
    for found, expected in ((p.log_prob(x), chosen), (p.entropy(), entropy),
                            (p.kl_divergence(q), kl)):
        assert found.shape == batch
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step", [1e-1, 1e-2, 1e-3, 1e-4])
def test_the_kl_of_nearly_equal_distributions_is_the_true_small_number(step):
    logits = random_logits(0, (200,))
    moved = (logits + step * random_logits(1, (200,))).astype(np.float32)

    def exact(a, b):
        p, q = probabilities(a), probabilities(b)
        return np.sum(q - p + scipy.special.rel_entr(p, q))

    expected = by_dimension(exact, (200,), logits, moved)
    p, q = MultiCategorical(jnp.asarray(logits)), MultiCategorical(jnp.asarray(moved))
    found = np.asarray(p.kl_divergence(q))
    assert np.all(found >= 0)
    # A float32 logit itself is only so exact: a few units in its last place, times its weight.
    np.testing.assert_allclose(found.mean(), expected.mean(), rtol=1e-5 + 3e-7 / step)
    np.testing.assert_array_equal(p.kl_divergence(p), 0)


def test_outcomes_ruled_out_leave_everything_finite():
    logits = jnp.asarray([[0.0, -jnp.inf, 1.0, 0.0], [0.0] * 4, [2.0, 0.0, 0.0, -jnp.inf]])
    p = MultiCategorical(logits)
    expected = by_dimension(lambda z: scipy.stats.entropy(probabilities(z)), (), logits)
    np.testing.assert_allclose(p.entropy(), expected, rtol=1e-6)
    np.testing.assert_array_equal(p.kl_divergence(p), 0)
    assert p.kl_divergence(MultiCategorical(jnp.where(jnp.isinf(logits), 0.0, logits))) > 0
    assert p.log_prob(jnp.asarray([1, 0, 0])) == -jnp.inf


def test_samples_have_the_probabilities_of_the_product():
    logits, count = draw(3, 2, 3), 100_000
    p = MultiCategorical(jnp.broadcast_to(logits, (count, 2, 3)))
    x = np.asarray(p.sample(jax.random.key(0)))
    assert x.shape == (count, 2) and np.issubdtype(x.dtype, np.integer)
    expected = np.outer(*probabilities(logits))
    for i, j in np.ndindex(3, 3):
        q = expected[i, j]
        share = np.mean((x[:, 0] == i) & (x[:, 1] == j))
        assert abs(share - q) < 5 * np.sqrt(q * (1 - q) / count)
    np.testing.assert_array_equal(p.mode()[0], logits.argmax(-1))


def test_fisher_is_the_hessian_of_the_kl():
    with jax.enable_x64(True):
        logits = jnp.asarray(random_logits(0, (2,)), jnp.float64)

        def textbook(z):
            a, b = (x - jax.nn.logsumexp(x, -1, keepdims=True) for x in (logits, z))
            return jnp.sum(jnp.exp(a) * (a - b))

        hessian = jax.jit(jax.hessian(textbook))(logits).reshape(logits.size, logits.size)

        def product(v):
            return MultiCategorical(logits).fisher(MultiCategorical(v.reshape(logits.shape)))

        assert isinstance(product(logits), MultiCategorical)
        columns = jax.jit(jax.vmap(lambda v: product(v).logits.ravel()))(jnp.eye(logits.size))
        np.testing.assert_allclose(columns.T, hessian, atol=1e-12)


def test_a_categorical_keeps_its_own_class_through_fisher():
    p = Categorical(jnp.zeros(3))
    assert type(p.fisher(p)) is Categorical


@pytest.mark.parametrize(("bins", "low", "high"), [(2, -1.0, 1.0), (11, -1.0, 1.0), (7, 0.5, 4.0)])
def test_bins_are_evenly_spaced_values_with_both_ends(bins, low, high):
    space = jtrust.Bins(2, bins, low, high)
    action = jnp.stack([jnp.arange(bins), jnp.arange(bins)[::-1]], axis=-1)
    expected = np.linspace(low, high, bins)
    found = np.asarray(space.to_environment(action))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found[:, 1], expected[::-1], rtol=1e-6, atol=1e-6)
    assert found.min() >= low and found.max() <= high
    x = space.sample(jax.random.key(0), (500,))
    assert x.shape == (500, 2) and set(np.unique(x)) == set(range(bins))


# Training in bins


def test_a_policy_in_bins_is_trained_kept_and_evaluated(tmp_path, point):
    arguments = dict(num_envs=16, unroll_length=8, devices=1, action_bins=5, seed=3)
    whole = jtrust.train(point, total_steps=128 * 4, run_dir=tmp_path / "whole", **arguments)
    jtrust.train(point, total_steps=128 * 2, run_dir=tmp_path / "cut", **arguments)
    resumed = jtrust.resume(tmp_path / "cut", 128 * 4, env=point, devices=1)
    assert resumed.trainer.environment.action == jtrust.Bins(1, 5)
    for a, b in zip(*(jax.tree.leaves(r.state.policy) for r in (whole, resumed)), strict=True):
        np.testing.assert_array_equal(a, b)
    policy = jtrust.load_policy(tmp_path / "cut")
    x = jax.random.normal(jax.random.key(0), (50, 2))
    np.testing.assert_array_equal(policy(x), whole.policy(x))
    sampled = np.asarray(policy(x, jax.random.key(1)))
    assert sampled.shape == (50, 1)
    assert set(np.unique(sampled)) == {-1.0, -0.5, 0.0, 0.5, 1.0}
    assert jtrust.evaluate(tmp_path / "cut", episodes=3, env=point)["step"] == 512
    # The first policy is nearly uniform.
    assert whole.metrics["policy/entropy"][0] == pytest.approx(np.log(5), abs=0.02)


def test_trajectories_hold_integers_and_random_actions_are_bins(point):
    trainer = jtrust.make_trainer(
        point, jtrust.TRPO(), num_envs=8, unroll_length=16, devices=1, action_bins=3
    )
    state = trainer.init(jax.random.key(0))

    def both(state):
        keys = environment_keys(state, 8)
        return trainer.collection(state, keys)[1], act_at_random(trainer, state, keys)

    from jtrust.profiling.probes import act_at_random
    from jtrust.training.mesh import REPLICATED, per_shard
    from jtrust.training.random_keys import environment_keys

    run = jax.jit(per_shard(both, trainer.mesh, REPLICATED, REPLICATED))
    trajectory, (_, reward) = run(state)
    assert trajectory.action.shape == (16, 8, 1) and trajectory.action.dtype == jnp.int32
    assert set(np.unique(trajectory.action)) == {0, 1, 2}
    # What the environment was given stands in its next observation.
    same = ~np.asarray(trajectory.termination | trajectory.truncation)[:-1]
    taken = np.asarray(trajectory.action)[:-1, :, 0][same] - 1.0
    np.testing.assert_allclose(np.asarray(trajectory.observation)[1:, :, 1][same], taken)
    assert reward.shape == (16, 8) and np.all(np.isfinite(reward))


@pytest.mark.parametrize("bins", [1, 0, -3, 2.5, "11", True, 10**9])
def test_a_number_of_bins_that_will_not_do_is_refused(point, bins):
    with pytest.raises(jtrust.BadArgument, match="such as 11") as caught:
        jtrust.make_trainer(point, jtrust.TRPO(), action_bins=bins)
    assert caught.value.name == "action_bins"


def test_discrete_actions_cannot_be_cut(point):
    environment = jtrust.environments.describe(point, "mine", action=jtrust.Box(1))
    discrete = jtrust.environments.Environment(
        "mine", environment.reset, environment.step, environment.observation, jtrust.Discrete(3),
        1000,
    )
    with pytest.raises(jtrust.BadArgument, match="mine has 3 discrete actions") as caught:
        jtrust.make_trainer(discrete, jtrust.TRPO(), action_bins=5)
    assert caught.value.name == "action_bins"


def test_the_former_name_of_several_categoricals_still_serves_and_warns():
    with pytest.warns(DeprecationWarning, match="MultiCategorical"):
        former = jtrust.distributions.Categoricals
    assert former is MultiCategorical
    with pytest.raises(AttributeError, match="Categorical5"):
        _ = jtrust.distributions.Categorical5
