"""A policy as an object: it travels, and answers what it cannot take in one line."""

import copy
import multiprocessing
import pickle

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.networks import NetworkConfig, RunningStatistics, make_policy_network
from jtrust.policy import Policy


class Linear(nn.Module):
    """Observation [..., 3] -> a Gaussian over [..., 2]."""

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(2)(x)
        return jtrust.distributions.DiagonalGaussian(mean, jnp.zeros_like(mean))


def make(kind):
    action = jtrust.Discrete(4) if kind == "discrete" else jtrust.Box(2, -3.0, 1.0)
    custom = Linear() if kind == "own" else None
    network = make_policy_network(NetworkConfig(), 3, action, custom)
    sample = jnp.zeros(3)
    params = network.init(jax.random.key(0), sample)
    return Policy(network, action, params, RunningStatistics.zero(sample))


X = np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)


@pytest.mark.parametrize("kind", ["box", "discrete", "own"])
@pytest.mark.parametrize("travel", [
    lambda policy: pickle.loads(pickle.dumps(policy)), copy.deepcopy, copy.copy,
], ids=["pickle", "deepcopy", "copy"])
def test_a_policy_that_has_acted_travels(kind, travel):
    policy = make(kind)
    key = jax.random.key(3)
    mode, sample = policy(X), policy(X, key)  # compiled, which is what could not be pickled
    other = travel(policy)
    np.testing.assert_array_equal(other(X), mode)
    np.testing.assert_array_equal(other(X, key), sample)


def test_a_policy_is_sent_to_a_process_that_is_spawned():
    policy = make("box")
    policy(X)
    process = multiprocessing.get_context("spawn").Process(target=policy, args=(X,))
    process.start()
    process.join(timeout=300)
    assert process.exitcode == 0


@pytest.mark.parametrize("key", [
    0, 1.0, "key", None.__class__, [1, 2], np.zeros(2), np.zeros(3, np.uint32), np.uint32(3),
    np.zeros((2, 2), np.uint32), jax.random.split(jax.random.key(0), 3), jnp.zeros(2),
], ids=repr)
def test_what_is_no_key_is_refused_by_name(key):
    with pytest.raises(jtrust.BadArgument, match="random key") as caught:
        make("box")(X, key)
    assert caught.value.name == "key" and "\n" not in str(caught.value)
    trainer = jtrust.make_trainer(
        jtrust.make_env("brax/fast"), jtrust.TRPO(), num_envs=2, unroll_length=2, devices=1
    ) if isinstance(key, int) else None
    if trainer is not None:
        with pytest.raises(jtrust.BadArgument, match="random key"):
            trainer.init(key)


def test_keys_of_both_makes_and_traced_ones_are_taken():
    policy = make("box")
    typed, raw = policy(X, jax.random.key(5)), policy(X, jax.random.PRNGKey(5))
    np.testing.assert_array_equal(typed, raw)
    np.testing.assert_array_equal(typed, policy(X, np.asarray(jax.random.PRNGKey(5))))
    many = jax.vmap(policy, (None, 0))(X, jax.random.split(jax.random.key(0), 4))
    assert many.shape == (4, 5, 2)
    np.testing.assert_array_equal(jax.jit(policy)(X, jax.random.key(5)), typed)


@pytest.mark.parametrize("observation", [
    None, "abc", b"abc", ["a", "b", "c"], np.zeros(3, complex), jnp.zeros(3, jnp.complex64),
    [1j, 2, 3], np.array([None] * 3), np.array([{}] * 3), object(), [[1, 2, 3], [1, 2]], {1, 2, 3},
    np.zeros(3, "datetime64[s]"), np.zeros(3, [("a", "f4")]), jax.random.key(0),
    jax.random.split(jax.random.key(0), 3), 3.0, [], np.zeros((3, 0)), np.zeros(4), {"a": X},
    {1: X, "b": X}, [2**80, 1, 1j],
], ids=lambda x: repr(x).partition(" object at")[0][:30])
def test_what_is_no_observation_is_refused_by_name(observation):
    with pytest.raises(jtrust.BadArgument) as caught:
        make("box")(observation)
    assert caught.value.name == "observation"
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("observation", [
    [0.1, 0.2, 0.3], (1, 2, 3), np.zeros(3, np.float64), np.zeros(3, np.int8), np.zeros(3, bool),
    jnp.zeros(3, jnp.bfloat16), np.zeros((0, 3)), [jnp.float32(1)] * 3,
], ids=lambda x: repr(x)[:30])
def test_real_numbers_of_any_kind_are_taken(observation):
    shape = (*np.shape(observation)[:-1], 2)
    assert make("box")(observation).shape == shape
    assert jax.jit(make("box"))(jnp.asarray(observation)).shape == shape
