"""A limit in every state: what is measured, what is kept, and what gradient steps bring down."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms import Batch
from jtrust.algorithms.ppo import Samples
from jtrust.cli import main
from jtrust.distributions import Categorical, DiagonalGaussian
from jtrust.trust_region import project

pytestmark = pytest.mark.slow

NAMES = ("kl", "w2", "frobenius")
STEPS, ENVS, SIZE, ACTIONS = 8, 16, 3, 2


class LinearPolicy:
    """Means and, where `of_states`, deviations linear in the observation."""

    def __init__(self, of_states=False):
        self.of_states = of_states

    def __call__(self, params, observation):
        log_std = params["log_std"]
        if self.of_states:
            log_std = log_std + 0.3 * observation @ params["of_std"]
        return DiagonalGaussian(observation @ params["kernel"], log_std).broadcast()

    def deviation(self, params):
        return {name: name == "log_std" and not self.of_states for name in params}


@functools.cache
def start():
    """A policy, and a batch that it gathered; better are actions along the first observation."""
    keys = jax.random.split(jax.random.key(1), 4)
    params = {
        "kernel": 0.3 * jax.random.normal(keys[0], (SIZE, ACTIONS)),
        "log_std": jnp.asarray([-0.2, 0.1]), "of_std": jnp.zeros((SIZE, ACTIONS)),
    }
    observation = jax.random.normal(keys[1], (STEPS, ENVS, SIZE))
    action = LinearPolicy()(params, observation).sample(keys[2])
    worth = action[..., 0] * observation[..., 0] - 0.5 * jnp.sum(action**2, -1)
    batch = Batch(
        observation, observation, action, (worth - worth.mean()) / worth.std(),
        observation[..., 0], jax.random.split(keys[3], ENVS),
    )
    return params, batch


def updated(algorithm, policy, batch=None):
    params, gathered = start()
    return jax.jit(lambda batch: algorithm.update(
        algorithm.init(params), params, policy, batch
    ))(batch or gathered)


def by_state(policy, new, observation, projection=None):
    """Both parts in each state: of a projection's distance, or of the KL old to new."""
    said = [policy(params, observation.reshape(-1, SIZE)) for params in (start()[0], new)]
    (m0, s0), (m1, s1) = ((np.asarray(d.mean, float), np.exp(np.asarray(d.log_std, float)))
                          for d in said)
    if projection is None:
        m0, s0, m1, s1 = m1, s1, m0, s0
    maha, r = (((m1 - m0) / s0) ** 2).sum(-1), s1 / s0
    if projection == "w2":
        return maha, ((1 - r) ** 2).sum(-1)
    if projection == "frobenius":
        return maha, ((s1**2 - s0**2) ** 2).sum(-1)
    return maha / 2, (r**2 - 1 - 2 * np.log(r)).sum(-1) / 2


@pytest.mark.parametrize(("kind", "parts"), [
    (jtrust.TRPO, 1), (jtrust.TRPO, 2), (jtrust.NPG, 1), (jtrust.PPO, 2),
])
def test_every_algorithm_says_how_far_the_state_moved_that_moved_most(kind, parts):
    policy = LinearPolicy()
    new, _, metrics = updated(kind(max_kl=0.05, parts=parts), policy)
    assert metrics["policy/accepted"] == 1
    kl = sum(by_state(policy, new, start()[1].observation))
    np.testing.assert_allclose(metrics["policy/kl_max"], kl.max(), rtol=1e-3)
    np.testing.assert_allclose(metrics["policy/kl"], kl.mean(), rtol=1e-3)
    assert metrics["policy/kl_max"] > 1.5 * metrics["policy/kl"]


@pytest.mark.parametrize("kind", [jtrust.TRPO, jtrust.TRPL])
def test_states_of_broken_steps_do_not_count(kind):
    policy = LinearPolicy()
    _, batch = start()
    weight = jnp.full((STEPS, ENVS), STEPS * ENVS / (STEPS * ENVS - 1.0)).at[2, 3].set(0.0)
    batch = dataclasses.replace(
        batch, weight=weight, broken=1.0 - (weight > 0),
        observation=batch.observation.at[2, 3].set(50.0),
    )
    new, _, metrics = updated(kind(), policy, batch)
    kl = sum(by_state(policy, new, batch.observation)).reshape(STEPS, ENVS)
    whole = np.where(np.asarray(weight) > 0, kl, 0.0).max()
    assert kl[2, 3] > 10 * whole > 0
    np.testing.assert_allclose(metrics["policy/kl_max"], whole, rtol=1e-3)


@pytest.mark.parametrize(("projection", "of_states", "parts"), [
    ("kl", False, 1), ("kl", True, 1), ("kl", True, 2), ("w2", True, 1), ("frobenius", False, 2),
])
def test_every_state_is_held_and_the_region_is_used(projection, of_states, parts):
    policy = LinearPolicy(of_states)
    algorithm = jtrust.TRPL(
        projection=projection, mean_bound=0.02, cov_bound=0.001, learning_rate=0.01, parts=parts,
        entropy_cost=0.5,
    )
    new, _, metrics = updated(algorithm, policy)
    assert metrics["policy/accepted"] == 1 and metrics["policy/projected"] > 0
    mean, cov = by_state(policy, new, start()[1].observation, projection)
    assert mean.max() <= 0.02 * (1 + 1e-3) and cov.max() <= 0.001 * (1 + 1e-3)
    # The whole of it is drawn back together, but for a deviation of its own.
    assert mean.max() > 0.012 or cov.max() > 0.0006
    if projection == "kl":
        # Of either direction, so that what is reported keeps the sum.
        other = by_state(policy, new, start()[1].observation)
        mean, cov = np.maximum(mean, other[0]), np.maximum(cov, other[1])
        assert metrics["policy/kl_max_limit"] == pytest.approx(0.021)
        assert metrics["policy/kl_max"] == pytest.approx(sum(other).max(), rel=1e-3)
        assert metrics["policy/kl_max"] <= 0.021
    else:
        assert "policy/kl_max_limit" not in metrics
    np.testing.assert_allclose(metrics["policy/mean_constraint_max"], mean.max(), rtol=2e-3)
    np.testing.assert_allclose(metrics["policy/cov_constraint_max"], cov.max(), rtol=2e-3)


def test_a_batch_that_is_worth_less_has_its_share_in_every_state():
    policy = LinearPolicy()
    batch = dataclasses.replace(start()[1], trust=0.04)
    new, _, metrics = updated(jtrust.TRPL(mean_bound=0.02, learning_rate=0.01), policy, batch)
    assert metrics["policy/mean_constraint_limit"] == pytest.approx(0.0008)
    assert 0 < by_state(policy, new, batch.observation)[0].max() <= 0.0008 * (1 + 1e-3)
    still, _, metrics = updated(
        jtrust.TRPL(), policy, dataclasses.replace(batch, trust=0.0)
    )
    assert metrics["policy/accepted"] == metrics["policy/kl_max"] == 0
    assert metrics["policy/skipped"] == 0
    jax.tree.map(np.testing.assert_array_equal, still, start()[0])


@pytest.mark.parametrize("projection", NAMES)
def test_what_gradient_steps_bring_down_is_the_surrogate_of_the_projection_and_its_distance(
    projection
):
    generator = np.random.default_rng(0)
    mean, old_mean, action = generator.normal(size=(3, 7, ACTIONS))
    log_std, old_log_std = 0.3 * generator.normal(size=(2, 7, ACTIONS))
    advantage, weight, gain_weight = generator.normal(size=(3, 7))
    old = DiagonalGaussian(jnp.asarray(old_mean), jnp.asarray(old_log_std))
    algorithm = jtrust.TRPL(
        projection=projection, mean_bound=0.1, cov_bound=0.02, trust_region_coeff=3.0
    )
    samples = Samples(None, action, advantage, weight, gain_weight, old, old.log_prob(action))
    loss, outside = algorithm.losses(
        DiagonalGaussian(jnp.asarray(mean), jnp.asarray(log_std)), samples, 0.2, 0.0,
        algorithm.limits(start()[1]),
    )
    held = [np.asarray(x, float) for x in project(
        projection, *map(jnp.asarray, (mean, log_std, old_mean, old_log_std)), 0.1, 0.02
    )]

    def log_density(mean, log_std):
        return (-0.5 * ((action - mean) / np.exp(log_std)) ** 2 - log_std).sum(-1)

    ratio = np.exp(log_density(*held) - log_density(old_mean, old_log_std))
    entropy = (held[1] + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
    maha = (((mean - held[0]) / np.exp(held[1])) ** 2).sum(-1)
    r, s = np.exp(log_std - held[1]), np.exp(held[1])
    apart = {
        "kl": maha / 2 + (r**2 - 1 - 2 * np.log(r)).sum(-1) / 2,
        "w2": maha + ((1 - r) ** 2).sum(-1),
        "frobenius": maha + ((s**2 * (r**2 - 1)) ** 2).sum(-1),
    }[projection]
    wanted = -gain_weight * ratio * advantage - weight * 0.2 * entropy + weight * 3.0 * apart
    np.testing.assert_allclose(loss, wanted, rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(outside, weight)  # all of them are that far


@pytest.mark.parametrize("network", [
    {"state_dependent_std": True},
    pytest.param({}, marks=pytest.mark.nightly),
    pytest.param({"squash": True}, marks=pytest.mark.nightly),
], ids=str)
def test_a_run_keeps_its_limit_in_every_update_on_any_number_of_devices(point, network):
    def run(devices):
        trainer = jtrust.make_trainer(
            point, jtrust.TRPL(mean_bound=0.02, cov_bound=0.001, learning_rate=3e-3),
            num_envs=32, unroll_length=16, devices=devices,
            network=jtrust.NetworkConfig(policy_layers=(16,), value_layers=(16,), **network),
        )
        return jax.jit(lambda s: jax.lax.scan(
            lambda s, _: trainer.iterate(s), s, length=12
        ))(trainer.init(jax.random.key(0)))[1]

    one, two = run(1), run(2)
    moved = one["policy/accepted"] > 0
    assert np.sum(moved) >= 8
    assert np.all(one["policy/kl_max"] <= one["policy/kl_max_limit"])
    assert np.all(one["policy/kl"] <= one["policy/kl_max"])
    assert np.all(one["policy/kl_max"][moved] > 0)
    assert np.any(one["policy/step_scale"][moved] < 1)  # it was needed
    np.testing.assert_allclose(two["policy/kl_max"][:3], one["policy/kl_max"][:3], rtol=1e-3)


def test_actions_that_are_not_gaussian_are_refused_in_one_line(point):
    with pytest.raises(jtrust.BadArgument, match="projects Gaussian policies") as error:
        jtrust.make_trainer(point, jtrust.TRPL(), num_envs=8, action_bins=5)
    assert error.value.name == "algorithm"
    _, batch = start()
    batch = dataclasses.replace(batch, action=jnp.zeros((STEPS, ENVS), jnp.int32))
    with pytest.raises(jtrust.BadArgument, match="this one is of Categorical"):
        updated(jtrust.TRPL(), lambda p, o: Categorical(o @ p["kernel"]), batch)


@pytest.mark.parametrize(("option", "value"), [
    ("--projection", "frob"), ("--mean-bound", "0"), ("--cov-bound", "nan"),
    ("--cov-bound", "-1"), ("--trust-region-coeff", "-1"), ("--mean-bound", "inf"),
])
def test_the_command_line_says_in_one_line_what_will_not_do(option, value, capsys, tmp_path):
    status = main(["train", "fast", "--algorithm", "trpl", option, value,
                   "--run-dir", str(tmp_path / "run")])
    said = capsys.readouterr().err
    assert status == 2 and said.count("\n") == 1 and option in said
    assert not (tmp_path / "run").exists()


def test_a_clip_is_that_of_ppo_and_none_by_default():
    ratio = jnp.asarray([0.5, 0.5, 1.1, 3.0, 3.0])
    advantage = jnp.asarray([2.0, -2.0, 1.0, 2.0, -2.0])
    expected = [-1.0, 1.4, -1.1, -2.6, 6.0]  # by hand: at 1 ± 0.3 where that is the lesser gain
    found = jtrust.TRPL(clip=0.3).loss(None, None, ratio, advantage, 0.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(
        jtrust.TRPL().loss(None, None, ratio, advantage, 0.0), -ratio * advantage
    )
