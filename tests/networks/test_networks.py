"""Networks by their options: how they start, what they say, and that folding is exact in all."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jtrust
from jtrust.distributions import DiagonalGaussian, MultiCategorical, TanhGaussian
from jtrust.networks import make_policy_network, make_value_network
from jtrust.training.mesh import REPLICATED, per_shard
from jtrust.trust_region import fisher_operator

INPUTS = 24


class OwnGaussian(nn.Module):
    """Not a perceptron: the observation multiplies what it passes through."""

    actions: int

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(nn.tanh(nn.Dense(8)(x)) * nn.Dense(8)(x) + 1.0)
        return DiagonalGaussian(
            nn.Dense(self.actions)(h), self.param("log_std", nn.initializers.zeros, (self.actions,))
        )


class OwnValue(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.swish(nn.Dense(8)(x) * x[..., :1]))[..., 0]


def init(config, action=jtrust.Box(3), inputs=INPUTS):  # noqa: B008
    network = make_policy_network(config, inputs, action)
    return network, network.init(jax.random.key(0), jnp.zeros(inputs))


# How kernels start


def kernels(name, layers=(32, 16)):
    _, params = init(jtrust.NetworkConfig(initialization=name, policy_layers=layers))
    mlp = params["params"]["mlp"]
    return [np.asarray(mlp[layer]["kernel"]) for layer in ("input", "hidden_1", "output")]


def test_orthogonal_kernels_are_orthogonal_with_their_gains():
    for kernel, gain in zip(kernels("orthogonal"), (2**0.5, 2**0.5, 0.01), strict=True):
        if kernel.shape[0] > kernel.shape[1]:
            kernel = kernel.T
        np.testing.assert_allclose(kernel @ kernel.T, gain**2 * np.eye(len(kernel)), atol=1e-5)


@pytest.mark.parametrize(("name", "bound"), [
    ("lecun_uniform", lambda i, o: np.sqrt(3 / i)),
    ("xavier_uniform", lambda i, o: np.sqrt(6 / (i + o))),
    ("he_uniform", lambda i, o: np.sqrt(6 / i)),
])
def test_uniform_kernels_fill_the_range_of_their_name(name, bound):
    for kernel, gain in zip(kernels(name, (256, 128)), (1, 1, 0.01), strict=True):
        limit = gain * bound(*kernel.shape)
        assert 0.95 * limit < np.abs(kernel).max() <= limit * (1 + 1e-6)
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.1)


# Deviations by state


@pytest.mark.parametrize(("initial", "least"), [(1.0, 0.05), (0.3, 0.0)])
def test_a_deviation_by_state_starts_where_it_is_told_and_keeps_its_floor(initial, least):
    config = jtrust.NetworkConfig(state_dependent_std=True, initial_std=initial, min_std=least)
    network, params = init(config)
    x = jax.random.normal(jax.random.key(1), (50, INPUTS))
    start = network(params, x)
    assert start.mean.shape == start.log_std.shape == (50, 3)
    np.testing.assert_allclose(np.exp(start.log_std), initial, rtol=0.05)
    output = params["params"]["mlp"]["output"]
    output["kernel"] = 50 * output["kernel"]
    moved = np.exp(network(params, x).log_std)
    assert np.std(moved, axis=0).min() > 0.05  # another one for each state
    output["bias"] = output["bias"] - 20.0
    low = np.exp(network(params, x).log_std)
    assert np.all(low >= least - 1e-6) and np.all(low < least + 1e-4)


def test_a_shared_deviation_is_one_parameter_for_all_states():
    network, params = init(jtrust.NetworkConfig(initial_std=0.5))
    assert params["params"]["log_std"].shape == (3,)
    log_std = network(params, jax.random.normal(jax.random.key(1), (50, INPUTS))).log_std
    np.testing.assert_allclose(np.exp(log_std), 0.5, rtol=1e-6)


# Fisher-vector products through the networks


def textbook_kl(p, q):
    if isinstance(p, MultiCategorical):
        a, b = (d.logits - jax.nn.logsumexp(d.logits, -1, keepdims=True) for d in (p, q))
        return jnp.sum(jnp.exp(a) * (a - b), (-1, -2))
    variance, other = jnp.exp(2 * p.log_std), jnp.exp(2 * q.log_std)
    terms = q.log_std - p.log_std + (variance + (p.mean - q.mean) ** 2) / (2 * other) - 0.5
    return jnp.sum(terms, -1)


@pytest.mark.parametrize(("action", "options"), [
    (jtrust.Bins(2, 3), {}),
    (jtrust.Box(2), dict(state_dependent_std=True)),
    (jtrust.Box(2), dict(state_dependent_std=True, squash=True)),
], ids=["bins", "by state", "by state, tanh"])
def test_fisher_products_are_those_of_the_hessian_of_the_mean_kl(action, options):
    with jax.enable_x64(True):
        network, params = init(jtrust.NetworkConfig(policy_layers=(4,), **options), action, 3)
        rng = np.random.default_rng(0)
        # Away from the start, where all states are much alike.
        params = jax.tree.map(lambda p: jnp.asarray(p + 0.5 * rng.normal(size=p.shape)), params)
        x = jnp.asarray(rng.normal(size=(6, 3)))
        flat, unravel = ravel_pytree(params)
        old = network(params, x)

        def mean_kl(theta):
            return jnp.mean(textbook_kl(old, network(unravel(theta), x)))

        hessian = np.asarray(jax.jit(jax.hessian(mean_kl))(flat))
        product = fisher_operator(lambda p: network(p, x), params)
        matrix = jax.jit(jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0]))(
            jnp.eye(flat.size)
        )
    np.testing.assert_allclose(matrix, hessian, rtol=1e-8, atol=1e-10 * np.abs(hessian).max())


# Folding


def batch_of(mean, spread, target, seed):
    keys = jax.random.split(jax.random.key(seed))
    observation = mean + spread * jax.random.normal(keys[0], (8, 64, 2))
    return observation, target * jax.random.normal(keys[1], (8, 64))


VARIANTS = {
    "bins": dict(action_bins=5),
    "by state": dict(network=jtrust.NetworkConfig(state_dependent_std=True)),
    "by state, tanh": dict(network=jtrust.NetworkConfig(state_dependent_std=True, squash=True)),
    "he, relu": dict(network=jtrust.NetworkConfig(initialization="he_uniform", activation="relu")),
    "lecun, swish, 1 layer": dict(network=jtrust.NetworkConfig(
        initialization="lecun_uniform", activation="swish", policy_layers=(16,), value_layers=(8,)
    )),
    "own": dict(policy_network=OwnGaussian(1), value_network=OwnValue()),
    "own policy alone": dict(policy_network=OwnGaussian(1)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_policy_and_values_do_what_they_did_after_their_normalisers_have_moved(point, variant):
    trainer = jtrust.make_trainer(
        point, jtrust.TRPO(), num_envs=64, unroll_length=8, devices=1, **VARIANTS[variant]
    )
    update = jax.jit(
        per_shard(trainer.preparation.update_statistics, trainer.mesh, REPLICATED, REPLICATED)
    )
    state, _ = update(trainer.init(jax.random.key(0)), *batch_of(0.0, 1.0, 1.0, seed=0))
    # As after some learning: no network is nearly constant any more.
    rng = np.random.default_rng(0)
    state = dataclasses.replace(state, **{
        part: jax.tree.map(
            lambda p: p + 0.3 * rng.normal(size=p.shape).astype(np.float32), getattr(state, part)
        ) for part in ("policy", "value")
    })
    # Batches unlike any before: the statistics change by a factor of about ten, twice.
    new, observed = update(state, *batch_of(30.0, 20.0, 100.0, seed=1))
    new, _ = update(new, *batch_of(-100.0, 5.0, 7.0, seed=2))
    x = jax.random.normal(jax.random.key(3), (100, 2))
    before = trainer.policy(state.policy, state.observation_statistics, x)
    after = trainer.policy(new.policy, new.observation_statistics, x)
    moved = trainer.policy(state.policy, new.observation_statistics, x)
    assert np.max(before.kl_divergence(after)) < 1e-7
    assert np.mean(before.kl_divergence(moved)) > 1e-3  # without folding it would have moved
    assert 0 <= observed["observation/drift_kl"] < 1e-7
    np.testing.assert_allclose(trainer.values(state, x), trainer.values(new, x), atol=1e-3)


@pytest.mark.parametrize(("wrong", "says"), [
    (dict(initialization="orthogonol"), "did you mean orthogonal"),
    (dict(initialization=None), "choose from orthogonal, lecun_uniform"),
    (dict(state_dependent_std=1), "must be True or False"),
])
def test_options_that_will_not_do_are_refused_by_name(wrong, says):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        jtrust.NetworkConfig(**wrong)
    assert caught.value.name == next(iter(wrong))


@pytest.mark.parametrize(("squash", "kind"), [(False, DiagonalGaussian), (True, TanhGaussian)])
def test_actions_are_clipped_or_squashed(squash, kind):
    config = jtrust.NetworkConfig(squash=squash, state_dependent_std=True)
    network, params = init(config)
    assert type(network(params, jnp.zeros(INPUTS))) is kind


@pytest.mark.parametrize("custom", [None, OwnValue()], ids=["ours", "custom"])
def test_without_memory_the_carry_is_empty_and_changes_nothing(custom):
    network = make_value_network(jtrust.NetworkConfig(), INPUTS, custom)
    params = network.init(jax.random.key(0), jnp.zeros(INPUTS))
    x = jax.random.normal(jax.random.key(1), (5, INPUTS))
    value, carry = network.apply(params, network.initial_carry((5,)), x)
    assert jax.tree.leaves(carry) == []
    np.testing.assert_array_equal(value, network(params, x))
    # Values are linear in what they call their last layer.
    layer = network.output_layer(params)
    twice = network.with_output_layer(params, jax.tree.map(lambda w: 2 * w, layer))
    np.testing.assert_allclose(network(twice, x), 2 * value, rtol=1e-5, atol=1e-6)


class Named(OwnGaussian):
    deviation_parameters = ("log_std",)


class Misnamed(OwnGaussian):
    deviation_parameters = ("sigma",)


class Text(OwnGaussian):
    deviation_parameters = "log_std"


def test_a_module_says_which_of_its_parameters_are_a_deviation(point):
    for module in (OwnGaussian(1), Named(1)):
        network = make_policy_network(jtrust.NetworkConfig(), 2, jtrust.Box(1), module)
        mask = network.deviation(network.init(jax.random.key(0), jnp.zeros(2)))
        assert mask["module"]["params"]["log_std"] and sum(jax.tree.leaves(mask)) == 1
    for module in (Misnamed(1), Text(1)):
        with pytest.raises(jtrust.BadArgument, match=r"a tuple of names .*log_std") as caught:
            jtrust.make_trainer(point, jtrust.PPO(), policy_network=module)
        assert caught.value.name == "deviation_parameters"
