"""Networks with memory against plain loops, dense Hessians and complex arithmetic."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jtrust
from jtrust.checks import BadArgument
from jtrust.environments.base import Bins, Box, Discrete
from jtrust.networks import RunningStatistics, make_policy_network, make_value_network
from jtrust.networks.sequence import Sequence, along_environments, every
from jtrust.networks.state_space import S5, discretized, hippo_normal
from jtrust.trust_region import fisher_vector_product

MEMORIES = ("gru", "lstm", "s5")
STEPS, COUNT, INPUTS = 7, 3, 4


def config(memory):
    return jtrust.NetworkConfig(
        policy_layers=(5, 6), value_layers=(5,), memory=memory, memory_size=4
    )


def made(memory, kind="policy", action=None, **changes):
    """(network, parameters that are no longer near zero, a sequence with episodes that begin)."""
    shape = dataclasses.replace(config(memory), **changes)
    network = (
        make_value_network(shape, INPUTS) if kind == "value"
        else make_policy_network(shape, INPUTS, action or Box(2))
    )
    keys = jax.random.split(jax.random.key(3), 5)
    flat, unravel = ravel_pytree(network.init(keys[0], jnp.zeros(INPUTS)))
    params = unravel(flat + 0.3 * jax.random.normal(keys[1], flat.shape))
    carry = jax.tree.map(
        lambda x: 0.5 * jax.random.normal(keys[2], x.shape), network.initial_carry((COUNT,))
    )
    starts = jax.random.bernoulli(keys[3], 0.3, (STEPS, COUNT)).at[0].set([False, True, False])
    x = jax.random.normal(keys[4], (STEPS, COUNT, INPUTS))
    return network, params, Sequence(x, starts, carry)


def quickly(function):
    """Compiled in little time, for what runs once."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def step_by_step(network, params, sequence):
    """One step after another; those whose episode begins with it are given a new carry."""
    outputs, carry = [], sequence.carry
    for x, begins in zip(sequence.observation, np.asarray(sequence.starts), strict=True):
        for n in np.flatnonzero(begins):
            carry = jax.tree.map(lambda c, i, n=n: c.at[n].set(i), carry, network.initial_carry())
        output, carry = network.apply(params, carry, x)
        outputs.append(output)
    return jax.tree.map(lambda *x: jnp.stack(x), *outputs), carry


@pytest.mark.parametrize("kind", ["policy", "value"])
@pytest.mark.parametrize("memory", MEMORIES)
def test_all_steps_at_once_are_one_step_after_another_with_resets(memory, kind):
    network, params, sequence = made(memory, kind)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)  # noqa: E731
    found = quickly(network.unroll)(
        params, sequence.carry, sequence.observation, sequence.starts
    )
    expected = quickly(lambda p: step_by_step(network, p, sequence))(params)
    jax.tree.map(close, found, expected)
    flat = jax.tree.map(lambda x: x.reshape(STEPS * COUNT, *x.shape[2:]), expected[0])
    jax.tree.map(close, quickly(network)(params, sequence), flat)
    assert float(jnp.std(jax.tree.leaves(expected[0])[0])) > 1e-3


@pytest.mark.parametrize(("memory", "layers"), [("gru", (5, 6)), ("lstm", (5,)), ("s5", (5, 6))])
def test_a_policy_acts_on_what_it_remembers_by_the_weights_of_memory_alone(memory, layers):
    network, params, sequence = made(memory, policy_layers=layers, change_gain=0)
    forgetful = dataclasses.replace(sequence, starts=jnp.ones_like(sequence.starts))
    assert jnp.abs(network(params, sequence).mean - network(params, forgetful).mean).max() > 1e-2
    without = jax.tree.map(
        lambda x, m: jnp.where(m, 0.0, x), params, network.of_memory(params)
    )
    found = network(without, sequence).mean
    np.testing.assert_array_equal(found, network(without, forgetful).mean)
    # No others are among them: what is left is a network of the first layer and the head.
    u = jnp.tanh(network.layer.apply({"params": params["input"]}, sequence.observation))
    remembered = 5 if memory == "s5" else 4
    read = jnp.concatenate([jnp.zeros((STEPS, COUNT, remembered)), u], axis=-1)
    expected = network.head(params["head"], read.reshape(STEPS * COUNT, -1)).mean
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("memory", "action"), [
    ("gru", Box(2)), ("lstm", Discrete(3)), ("s5", Bins(1, 3)),
])
def test_the_fisher_matrix_through_time_is_the_hessian_of_the_mean_kl(memory, action):
    network, params, sequence = made(memory, action=action, policy_layers=(3,), memory_size=2)
    sequence = dataclasses.replace(  # a dense Hessian takes as long as there are steps
        sequence, observation=sequence.observation[:4], starts=sequence.starts[:4]
    )
    assert sequence.starts[1:].any()
    flat, unravel = ravel_pytree(params)
    old = quickly(lambda p: step_by_step(network, p, sequence)[0])(params)

    def mean_kl(flat):
        new, _ = step_by_step(network, unravel(flat), sequence)
        return jnp.mean(old.kl_divergence(new))

    vector = jax.random.normal(jax.random.key(1), flat.shape)
    hessian = quickly(jax.hessian(mean_kl))(flat)

    def fisher(sequence):
        return fisher_vector_product(lambda p: network(p, sequence), params, unravel(vector))

    product = quickly(fisher)(sequence)
    expected = hessian @ vector
    error = np.abs(ravel_pytree(product)[0] - expected).max()
    assert error < 2e-4 * np.abs(expected).max()
    # What went before counts: without it the matrix is another one.
    forgetful = dataclasses.replace(sequence, starts=jnp.ones_like(sequence.starts))
    other = quickly(fisher)(forgetful)
    assert np.abs(ravel_pytree(other)[0] - expected).max() > 1e-2 * np.abs(expected).max()


@pytest.mark.parametrize("memory", MEMORIES)
def test_new_statistics_change_neither_policy_nor_values_through_time(memory):
    old = RunningStatistics(jnp.float32(9), jnp.full(INPUTS, 0.5), jnp.full(INPUTS, 2.0))
    new = RunningStatistics(
        jnp.float32(20), jnp.linspace(-1.0, 1.0, INPUTS), jnp.linspace(0.5, 3.0, INPUTS)
    )
    scales = [RunningStatistics(jnp.float32(9), jnp.float32(m), jnp.float32(v))
              for m, v in ((1.0, 4.0), (3.0, 9.0))]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)  # noqa: E731

    def read(network, params, sequence, statistics):
        x = statistics.normalize(sequence.observation)
        return network(params, dataclasses.replace(sequence, observation=x))

    network, params, sequence = made(memory)
    folded = network.fold_input(params, old, new)
    before, after = read(network, params, sequence, old), read(network, folded, sequence, new)
    jax.tree.map(close, before, after)
    network, params, sequence = made(memory, "value")
    folded = network.fold_output(network.fold_input(params, old, new), *scales)
    close(1.0 + 2.0 * read(network, params, sequence, old),
          3.0 + 3.0 * read(network, folded, sequence, new))


def test_the_deviation_of_a_policy_with_memory_is_known_and_its_precision_is_written():
    network, params, sequence = made("gru")
    mask = network.deviation(params)
    assert sum(jax.tree.leaves(mask)) == 1 and mask["head"]["params"]["log_std"]
    text = str(jax.make_jaxpr(network.with_precision("high"))(params, sequence))
    assert "Precision.HIGHEST" not in text and "Precision.HIGH" in text


def test_a_state_space_is_the_complex_one():
    """x' = Λx + Bu held over Δ, in numpy's complex numbers, from the conjugates' full system."""
    size, width = 6, 3
    layer = S5(size)
    params = layer.init(jax.random.key(0), jnp.zeros(width))
    step = np.exp(np.asarray(params["log_step"], np.float64))
    values = np.asarray(params["decay"]) + 1j * np.asarray(params["frequency"])
    into = np.asarray(params["B"][0]) + 1j * np.asarray(params["B"][1])
    transition = np.exp(values * step)
    held = ((transition - 1) / values)[:, None] * into
    found = discretized(params)
    np.testing.assert_allclose(found[0][0] + 1j * np.asarray(found[0][1]), transition, rtol=1e-5)
    np.testing.assert_allclose(found[1][0] + 1j * np.asarray(found[1][1]), held, rtol=1e-4)
    # The kept eigenvectors and their conjugates are those of the normal part of HiPPO-LegS.
    values, vectors = hippo_normal(size)
    everything = np.concatenate([vectors, vectors.conj()], axis=1)
    matrix = everything @ np.diag(np.concatenate([values, values.conj()])) @ everything.conj().T
    n = np.arange(size)
    expected = np.sqrt(np.outer(2 * n + 1, 2 * n + 1)) / 2 * np.where(n[:, None] < n, 1, -1)
    expected -= np.diag(np.diag(expected)) + np.eye(size) / 2
    np.testing.assert_allclose(matrix.real, expected, atol=1e-9)
    np.testing.assert_allclose(matrix.imag, 0.0, atol=1e-9)


def test_a_share_of_a_rollout_is_of_whole_environments_where_there_is_memory():
    x = jnp.arange(STEPS * 4 * 2.0).reshape(STEPS, 4, 2)
    sequence = Sequence(x, jnp.zeros((STEPS, 4), bool), (jnp.arange(4.0),))
    some = every(8, sequence, sequence)  # as many as divide four
    np.testing.assert_array_equal(some.observation, x[:, ::4])
    np.testing.assert_array_equal(some.carry[0], [0.0])
    np.testing.assert_array_equal(every(2, sequence, x), x[:, ::2])
    np.testing.assert_array_equal(every(2, x, x), x[::2])
    taken = along_environments(lambda leaf, axis: jnp.take(leaf, 1, axis), (sequence, x))
    assert taken[0].carry[0] == 1.0 and taken[0].starts.shape == (STEPS,)


@pytest.mark.parametrize(("changes", "words"), [
    ({"memory": "foo"}, "memory='foo'"), ({"memory": "gru", "memory_size": 0}, "memory_size=0"),
    ({"memory": "gru", "memory_size": 2**30}, "memory_size"),
    ({"memory": "s5", "memory_size": 63}, "even"), ({"memory": 3}, "memory=3"),
])
def test_bad_memories_are_refused(changes, words):
    with pytest.raises(BadArgument) as error:
        jtrust.NetworkConfig(**changes)
    assert words in str(error.value) and "\n" not in str(error.value)


class Leaky(nn.Module):
    """A user's own: a leaky sum of observations under a Gaussian."""

    outputs: int = 2
    deviation_parameters = ("spread",)

    def initial_carry(self, batch_shape):
        return {"sum": jnp.ones((*batch_shape, INPUTS))}

    @nn.compact
    def __call__(self, carry, x):
        total = 0.5 * carry["sum"] + x
        mean = nn.Dense(self.outputs)(jnp.tanh(nn.Dense(4)(total)))
        spread = self.param("spread", nn.initializers.zeros, (self.outputs,))
        return jtrust.distributions.DiagonalGaussian(mean, spread), {"sum": total}


class LeakyValue(Leaky):
    def __call__(self, carry, x):
        distribution, carry = super().__call__(carry, x)
        return distribution.mean[..., 0], carry


class NoAxes(Leaky):
    def initial_carry(self, batch_shape):
        return {"sum": jnp.ones(INPUTS)}


class Nothing(Leaky):
    def initial_carry(self, batch_shape):
        return ()

    @nn.compact
    def __call__(self, carry, x):
        distribution, _ = Leaky(self.outputs)({"sum": x}, x)
        return distribution, carry


class WithoutCarry(Leaky):
    @nn.compact
    def __call__(self, carry, x):
        return Leaky(self.outputs)(carry, x)[0]


class Remembers(Leaky):
    memory_parameters = ("Dense_0", "spread")


class Misnamed(Leaky):
    memory_parameters = ("Dense_2",)


class Unnamed(nn.Module):
    """Says nothing of its parameters; one of them is a `log_std`."""

    def initial_carry(self, batch_shape):
        return jnp.zeros(batch_shape)

    @nn.compact
    def __call__(self, carry, x):
        spread = self.param("log_std", nn.initializers.zeros, (2,))
        mean = nn.Dense(2)(x) + carry[..., None]
        return jtrust.distributions.DiagonalGaussian(mean, spread), carry + x[..., 0]


def test_a_module_with_memory_need_not_say_anything_of_its_parameters():
    network = make_policy_network(jtrust.NetworkConfig(), INPUTS, Box(2), Unnamed())
    deviation = network.deviation(network.init(jax.random.key(0), jnp.zeros(INPUTS)))
    assert deviation["module"]["params"]["module"]["log_std"]
    assert sum(jax.tree.leaves(deviation)) == 1


def test_a_module_says_which_of_its_parameters_are_memory():
    def mask_of(module):
        network = make_policy_network(jtrust.NetworkConfig(), INPUTS, Box(2), module)
        return network.of_memory(network.init(jax.random.key(0), jnp.zeros(INPUTS)))

    assert not any(jax.tree.leaves(mask_of(Leaky())))
    mask = mask_of(Remembers())
    own = mask["module"]["params"]["module"]
    assert own["Dense_0"] == {"kernel": True, "bias": True} and own["spread"]
    assert sum(jax.tree.leaves(mask)) == 3
    with pytest.raises(BadArgument, match=r"a tuple of names .* bias, kernel, spread") as caught:
        mask_of(Misnamed())
    assert caught.value.name == "memory_parameters" and "\n" not in str(caught.value)


def test_a_module_of_the_users_own_may_remember():
    network = make_policy_network(jtrust.NetworkConfig(), INPUTS, Box(2), Leaky())
    params = network.init(jax.random.key(0), jnp.zeros(INPUTS))
    assert sum(jax.tree.leaves(network.deviation(params))) == 1
    sequence = dataclasses.replace(made("gru")[2], carry=network.initial_carry((COUNT,)))
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)  # noqa: E731
    jax.tree.map(
        close,
        quickly(network.unroll)(params, sequence.carry, sequence.observation, sequence.starts),
        quickly(lambda p: step_by_step(network, p, sequence))(params),
    )
    old = RunningStatistics(jnp.float32(9), jnp.full(INPUTS, 0.5), jnp.full(INPUTS, 2.0))
    new = RunningStatistics(jnp.float32(9), jnp.full(INPUTS, -0.5), jnp.full(INPUTS, 5.0))
    folded = network.fold_input(params, old, new)
    x = sequence.observation
    read = lambda p, s: network(p, dataclasses.replace(sequence, observation=s.normalize(x)))  # noqa: E731
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
                 read(params, old), read(folded, new))
    value = make_value_network(jtrust.NetworkConfig(), INPUTS, LeakyValue())
    params = value.init(jax.random.key(0), jnp.zeros(INPUTS))
    assert value(params, sequence).shape == (STEPS * COUNT,)


@pytest.mark.parametrize(("module", "words"), [
    (NoAxes(), "must have these axes before"), (Nothing(), "holds nothing"),
    (WithoutCarry(), "it raised"), (Leaky(3), "must return a distribution"),
])
def test_modules_that_cannot_remember_are_refused(module, words):
    with pytest.raises(BadArgument) as error:
        make_policy_network(jtrust.NetworkConfig(), INPUTS, Box(2), module)
    text = str(error.value)
    assert words in text and "OneStep" not in text and "\n" not in text


def test_memory_that_a_module_does_not_have_is_refused():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(1)(x)[..., 0]

    with pytest.raises(BadArgument, match="value_network Plain has none"):
        make_value_network(jtrust.NetworkConfig(memory="gru"), INPUTS, Plain())
