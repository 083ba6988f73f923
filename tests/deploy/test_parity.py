"""An exported policy that acts otherwise is found out; one that rounds otherwise is not."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jtrust.checks import BadArgument
from jtrust.deploy import onnx_format
from jtrust.deploy.acting import Acting
from jtrust.deploy.alone import check_alone
from jtrust.deploy.parity import OBSERVATIONS, ExportFailed, compare, observations_for
from jtrust.distributions import Categorical, DiagonalGaussian, MultiCategorical
from jtrust.environments.base import Bins, Box, Discrete
from jtrust.networks import NetworkConfig
from tests.deploy.policies import make_policy


def batches_of(function):
    """A runtime: a function of arrays, applied to each batch."""
    return lambda batches: [[np.asarray(x) for x in function(*batch)] for batch in batches]


def through_onnx(acting, path):
    onnx_format.write(path / "policy.onnx", acting, {})
    return onnx_format.Runtime(path / "policy.onnx")


class Own(nn.Module):
    """What users write: layer norm, another activation, a skip, a scale of its own."""

    actions: int = 3

    @nn.compact
    def __call__(self, x):
        h = nn.LayerNorm()(nn.elu(nn.Dense(8)(x)))
        h = jnp.concatenate([h, nn.softmax(nn.Dense(4)(h)), x[..., :2]], axis=-1)
        mean = nn.Dense(self.actions)(h) * nn.softplus(self.param("w", nn.initializers.ones, ()))
        return DiagonalGaussian(mean, self.param("log_std", nn.initializers.zeros, (3,)))


class MaskedChoice(nn.Module):
    """The first choice is never allowed."""

    @nn.compact
    def __call__(self, x):
        logits = nn.Dense(4)(nn.relu(nn.Dense(8)(x)))
        return Categorical(jnp.where(jnp.arange(4) > 0, logits, -jnp.inf))


POLICIES = {
    "clipped": dict(),
    "scaled": dict(action=Box(2, low=-3.0, high=7.0), config=NetworkConfig(activation="gelu")),
    "squashed": dict(config=NetworkConfig((16,), squash=True, activation="swish")),
    "a deviation each": dict(
        config=NetworkConfig((16, 8, 8), state_dependent_std=True, activation="elu")
    ),
    "wide and without bounds": dict(config=NetworkConfig((256, 256), activation="relu")),
    "discrete": dict(action=Discrete(5)),
    "bins": dict(action=Bins(3, 11, low=-2.0, high=1.0)),
    "own": dict(custom=Own()),
    "masked": dict(action=Discrete(4), custom=MaskedChoice()),
    "one number of a dictionary": dict(inputs=1, action=Box(1), key="state"),
}
SAMPLED = ("squashed", "a deviation each", "discrete", "bins")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stochastic"), [
    *((name, False) for name in POLICIES), *((name, True) for name in SAMPLED),
])
def test_every_kind_of_policy_acts_in_onnx_as_it_does_here(name, stochastic, tmp_path):
    acting = Acting.of(make_policy(**POLICIES[name]), stochastic)
    check_alone(acting)
    runtime = through_onnx(acting, tmp_path)
    found = compare(acting, runtime.batches, runtime.name)
    assert found.largest_difference < 1e-5 and found.observations == OBSERVATIONS
    assert found.rounding <= 100 and found.not_finite == 0
    for batch in (1, 4096):
        assert all(len(x) == batch for x in runtime(*(
            np.zeros((batch, *x.shape), x.dtype) for x in acting.inputs
        )))


def test_onnx_gives_what_the_formula_gives_in_numpy(tmp_path):
    policy = make_policy(Box(2, low=-1.0, high=3.0), NetworkConfig((16, 8)))
    runtime = through_onnx(Acting.of(policy, True), tmp_path)
    x = observations_for(Acting.of(policy, False))["drawn from the statistics"][:50]
    noise = np.random.default_rng(0).standard_normal((50, 2)).astype(np.float32)
    tree = jax.tree.map(lambda a: np.asarray(a, np.float64), policy.params["params"])
    variance = np.asarray(policy.statistics.variance)
    h = (x - np.asarray(policy.statistics.mean)) / np.sqrt(np.maximum(variance, 1e-6))
    for layer in ("input", "hidden_1"):
        h = np.tanh(h @ tree["mlp"][layer]["kernel"] + tree["mlp"][layer]["bias"])
    mean = h @ tree["mlp"]["output"]["kernel"] + tree["mlp"]["output"]["bias"]
    sample = mean + (0.05 + np.exp(tree["log_std"])) * noise
    np.testing.assert_allclose(
        runtime(x, noise)[0], 1 + 2 * np.clip(sample, -1, 1), atol=2e-5
    )


def test_the_observations_hold_the_edges_and_all_are_there():
    acting = Acting.of(make_policy(), False)
    kinds = observations_for(acting)
    assert sum(map(len, kinds.values())) == OBSERVATIONS
    assert not kinds["zeros"].any()
    np.testing.assert_allclose(kinds["mean"][0], acting.policy.statistics.mean, rtol=1e-6)
    z = np.asarray(acting.policy.statistics.normalize(kinds["drawn from the statistics"]))
    np.testing.assert_allclose([z.mean(0), z.std(0)], [np.zeros(5), np.ones(5)], atol=0.05)
    assert np.abs(kinds["huge"]).max() > 1e12 and np.isfinite(kinds["huge"]).all()


def changed(acting, **parts):
    return dataclasses.replace(acting, policy=dataclasses.replace(acting.policy, **parts))


WRONG = {
    "normaliser left out": lambda a: changed(a, statistics=a.policy.statistics.zero(
        a.policy.statistics.mean
    )),
    "scale forgotten": lambda a: changed(a, action=Box(3)),
    "a weight off by a thousandth": lambda a: changed(a, params=jax.tree.map(
        lambda x: x * 1.001, a.policy.params
    )),
    "the last layer alone a little off": lambda a: changed(a, params=jax.tree.map(
        lambda x: x + 1e-4 * (x.shape == (3,)), a.policy.params
    )),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_policy_that_acts_otherwise_is_found_out(name):
    acting = Acting.of(make_policy(Box(3, low=-2.0, high=2.0)), False)
    compare(acting, batches_of(acting.compiled), "JAX")
    with pytest.raises(ExportFailed, match="does not act as the policy does"):
        compare(acting, batches_of(WRONG[name](acting).compiled), "JAX")


@pytest.mark.parametrize("action", [Discrete(4), Bins(2, 5)], ids=["discrete", "bins"])
@pytest.mark.parametrize("part", [0, 1], ids=["actions", "logits"])
def test_one_wrong_choice_or_logit_in_ten_thousand_is_found_out(action, part):
    acting = Acting.of(make_policy(action), False)

    def wrong(x):
        found = [np.array(y) for y in acting.compiled(x)]
        if len(x) == 1:  # the last batch
            if part == 1:
                found[1] += 1e-3 * np.abs(found[1]).max()
            elif isinstance(action, Discrete):
                found[0] = (found[0] + 1) % 4
            else:
                found[0] = -found[0] + 0.5
        return found

    with pytest.raises(ExportFailed, match="differ at 1 of 10,000"):
        compare(acting, batches_of(wrong), "JAX")


class Tied(nn.Module):
    """Two choices that are always as good as each other, and one that never is."""

    @nn.compact
    def __call__(self, x):
        first = nn.Dense(1)(x)
        return Categorical(jnp.concatenate([first, first, first - 1], -1))


def test_a_tie_may_fall_either_way_and_is_counted():
    acting = Acting.of(make_policy(Discrete(3), custom=Tied()), False)
    other = lambda x: (1 - acting.compiled(x)[0], acting.compiled(x)[1])  # noqa: E731
    assert compare(acting, batches_of(other), "JAX").other_choices == OBSERVATIONS
    worse = lambda x: (2 - acting.compiled(x)[0], acting.compiled(x)[1])  # noqa: E731
    with pytest.raises(ExportFailed, match="choices differ at 9,"):
        compare(acting, batches_of(worse), "JAX")


def test_no_number_where_the_policy_has_one_is_a_failure():
    acting = Acting.of(make_policy(), False)
    broken = lambda x: [np.where(x[:, :3] > 1e8, np.nan, acting.compiled(x)[0])]  # noqa: E731
    with pytest.raises(ExportFailed):
        compare(acting, batches_of(broken), "JAX")


class Mixing(nn.Module):
    """Takes from each observation a little of the next one's."""

    amount: float

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(3)(x)
        if self.amount and mean.ndim == 2:
            mean = mean + self.amount * jnp.nan_to_num(jnp.roll(mean, 1, axis=0))
        return DiagonalGaussian(mean, jnp.zeros(3))


def test_a_network_that_mixes_a_batch_is_refused_however_little():
    check_alone(Acting.of(make_policy(custom=Mixing(0.0)), False))
    with pytest.raises(BadArgument, match="who else is in the batch"):
        check_alone(Acting.of(make_policy(custom=Mixing(1e-11)), False))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OwnGaussian(DiagonalGaussian):
    """Samples nobody knows how."""

    def sample(self, key):
        return self.mean + jax.random.uniform(key, self.mean.shape)


class OwnDistribution(nn.Module):
    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(3)(x)
        return OwnGaussian(mean, jnp.zeros_like(mean))


def test_a_distribution_of_ones_own_gives_its_mode_and_is_not_sampled(tmp_path):
    policy = make_policy(custom=OwnDistribution())
    acting = Acting.of(policy, False)
    compare(acting, through_onnx(acting, tmp_path).batches, "onnxruntime")
    with pytest.raises(BadArgument, match=r"how OwnGaussian draws.*DiagonalGaussian"):
        Acting.of(policy, True)


def test_gumbel_noise_from_uniform_numbers_gives_the_probabilities():
    acting = Acting.of(make_policy(Bins(1, 3)), True)
    observation = np.repeat(np.asarray(acting.policy.statistics.mean)[None], 40_000, 0)
    uniform = np.random.default_rng(0).uniform(size=(40_000, 1, 3))
    actions, logits = acting.compiled(observation, (-np.log(-np.log(uniform))).astype(np.float32))
    share = [(np.asarray(actions) == value).mean() for value in (-1, 0, 1)]
    weights = np.exp(np.asarray(logits[0, 0], np.float64))
    np.testing.assert_allclose(share, weights / weights.sum(), atol=0.01)
    assert MultiCategorical is acting.distribution
