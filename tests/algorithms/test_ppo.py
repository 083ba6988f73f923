"""PPO follows the divergence of its updates, by its learning rate or by its penalty."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jtrust
from jtrust.algorithms import Batch
from jtrust.algorithms.surrogate import deviation_mask, memory_mask
from jtrust.environments.base import Box
from jtrust.networks import make_policy_network
from tests.conftest import Point

pytestmark = pytest.mark.slow


def test_judging_leaves_a_band_around_the_target():
    algorithm = jtrust.PPO(target_kl=0.02)
    kl = jnp.asarray([0.0, 0.0133, 0.0134, 0.0299, 0.0301])
    too_far, too_short = algorithm.judge(kl)
    assert too_short.tolist() == [True, True, False, False, False]
    assert too_far.tolist() == [False, False, False, False, True]
    too_far, too_short = algorithm.judge(kl, drawn_back=True)
    assert all(too_far) and not any(too_short)


@pytest.mark.parametrize(("learning_rate", "target"), [
    (5e-5, 0.01), pytest.param(0.003, 0.001, marks=pytest.mark.nightly),
])
def test_a_learning_rate_far_off_comes_towards_where_updates_move_by_the_target(
    point, learning_rate, target
):
    def run(adaptive):
        algorithm = jtrust.PPO(
            learning_rate=learning_rate, target_kl=target, adaptive=adaptive, advantage_floor=0.0
        )
        trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
        metrics = jax.jit(lambda s: jax.lax.scan(
            lambda s, _: trainer.iterate(s), s, length=60
        ))(trainer.init(jax.random.key(0)))[1]
        off = np.abs(np.log(np.maximum(metrics["policy/kl"][-20:], 1e-6) / target))
        return np.asarray(metrics["policy/learning_rate"]), np.median(off)

    rate, off = run(adaptive=True)
    fixed_rate, fixed_off = run(adaptive=False)
    assert rate[0] == fixed_rate[0] == pytest.approx(learning_rate)
    assert np.ptp(fixed_rate) == 0 and off < fixed_off
    change = np.log(rate[-1] / learning_rate)
    assert change > 1 if learning_rate < 1e-3 else change < -1


def test_a_learning_rate_stays_within_ten_times_what_was_given():
    algorithm = jtrust.PPO()
    state = algorithm.init({"w": jnp.zeros(3)})
    for far, short, wanted in ((True, False, 0.1), (False, True, 10.0)):
        for _ in range(60):
            state = algorithm.adapt(state, jnp.bool_(far), jnp.bool_(short))
        assert state.rate_scale == pytest.approx(wanted)


@pytest.mark.parametrize("algorithm", [jtrust.PPO, jtrust.PPOPenalty, jtrust.TRPL])
def test_rates_of_means_deviation_and_memory(algorithm):
    """Adam's first step is its rate, whatever the gradient: that of each weight by itself."""
    shape = jtrust.NetworkConfig(policy_layers=(3, 3), memory="gru", memory_size=2)
    network = make_policy_network(shape, 4, Box(2))
    params = network.init(jax.random.key(0), jnp.zeros(4))
    flat, unravel = ravel_pytree(params)
    optimizer = algorithm(learning_rate=1e-3, memory_rate=0.2).optimizer(
        params, 5.0, deviation_mask(network, params), memory_mask(network, params)
    )
    gradient = jnp.where(jnp.arange(flat.size) % 2 == 0, 0.02, -0.01)
    steps, _ = optimizer.update(gradient, optimizer.init(flat), flat)
    rates = jax.tree.map(lambda x: np.abs(x) / 1e-3, unravel(steps))
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3)
    jax.tree.map(lambda x: close(x, 0.2 * 5), rates["cell"])
    head = rates["head"]["params"]
    close(head["mlp"]["input"]["kernel"][:2], 0.2 * 5)
    close(head["mlp"]["input"]["kernel"][2:], 5)
    close(head["log_std"], 1)
    jax.tree.map(lambda x: close(x, 5), (rates["input"], head["mlp"]["output"]))


def test_a_rate_ten_times_as_high_moves_the_means_and_not_the_deviation(point):
    algorithm = jtrust.PPO(max_kl=1e3)
    trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
    start = trainer.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(5), 3)
    observation = jax.random.normal(keys[0], (16, 32, 2))
    action = jax.random.normal(keys[1], (16, 32, 1))
    # Actions near 0 are better, so the deviation is to fall, and so is the mean's distance from 0.
    batch = Batch(
        observation, observation, action, 1.0 - action[..., 0] ** 2, observation[..., 0],
        jax.random.split(keys[2], 32),
    )
    means, deviations = [], []
    for scale in (1.0, 10.0):
        state = dataclasses.replace(start.policy_optimizer, rate_scale=jnp.float32(scale))
        policy, _, metrics = algorithm.update(
            state, start.policy, trainer.policy_network, batch
        )
        assert metrics["policy/step_scale"] == 1
        assert metrics["policy/learning_rate"] == pytest.approx(scale * 3e-4)
        moved = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b)), policy, start.policy)
        deviations.append(moved["params"]["log_std"])
        means.append(sum(jax.tree.leaves(moved["params"]["mlp"])))
    assert means[1] > 3 * means[0]
    # 40 steps of Adam at its own rate, all in one direction.
    assert deviations == [pytest.approx(40 * 3e-4, rel=0.1)] * 2


def updated(algorithm, advantage):
    trainer = jtrust.make_trainer(
        Point(), algorithm, num_envs=32, unroll_length=16, devices=1
    )
    start = trainer.init(jax.random.key(0))
    keys = jax.random.split(jax.random.key(5), 3)
    observation = jax.random.normal(keys[0], (16, 32, 2))
    batch = Batch(
        observation, observation, jax.random.normal(keys[1], (16, 32, 1)), advantage,
        observation[..., 0], jax.random.split(keys[2], 32),
    )
    return start, *algorithm.update(
        start.policy_optimizer, start.policy, trainer.policy_network, batch
    )


@pytest.mark.parametrize("algorithm", [jtrust.PPO(), jtrust.PPOPenalty()], ids=lambda a: a.name)
def test_an_update_whose_gradients_are_not_finite_teaches_nothing(algorithm):
    """A divergence of 0 would read as a rate too small, or a penalty too large."""
    start, policy, state, metrics = updated(algorithm, jnp.full((16, 32), jnp.nan))
    assert metrics["policy/skipped"] == 40  # 5 epochs of 8 minibatches
    assert metrics["policy/accepted"] == metrics["policy/kl"] == 0
    for new, old in ((policy, start.policy), (state, start.policy_optimizer)):
        jax.tree.map(np.testing.assert_array_equal, new, old)


@pytest.mark.parametrize("algorithm", [jtrust.PPO(), jtrust.PPOPenalty()], ids=lambda a: a.name)
def test_an_update_of_which_a_part_is_left_out_is_no_sign_of_too_small_a_rate(algorithm):
    quiet = 1e-3 * jax.random.normal(jax.random.key(1), (16, 32))
    few = dataclasses.replace(algorithm, entropy_cost=0.0, learning_rate=1e-6)
    start, _, whole, metrics = updated(few, quiet)
    assert 0 < metrics["policy/kl"] < algorithm.target_kl / 1.5  # too short a way, and so faster
    adapted = ("rate_scale" if algorithm.name == "ppo" else "kl_coefficient")
    assert getattr(whole, adapted) != getattr(start.policy_optimizer, adapted)
    # One advantage that is not finite: one minibatch of each pass is left out.
    start, _, part, metrics = updated(few, quiet.at[3, 4].set(jnp.inf))
    assert metrics["policy/skipped"] == 5 and metrics["policy/accepted"] == 0
    assert getattr(part, adapted) == getattr(start.policy_optimizer, adapted)


@pytest.mark.parametrize("kind", [jtrust.TRPO, jtrust.PPO, jtrust.PPOPenalty])
def test_the_limits_of_large_rollouts_grow_with_the_root_of_their_steps(kind):
    small, *large = (kind().settled(n, 64).max_kl for n in (256, 320, 1024, 4096, 16_384))
    assert small == kind().max_kl and np.all(np.diff([small, *large]) >= 0)
    assert large[3] == pytest.approx(2 * large[2])  # four times the environments
    assert kind(max_kl=0.02).settled(4096, 64).max_kl == 0.02


def test_a_target_that_is_given_does_not_lie_behind_a_limit_that_is_not():
    for envs in (64, 320, 512, 4096):
        settled = jtrust.PPOPenalty(target_kl=0.04).settled(envs, 64)
        assert settled.target_kl == 0.04 <= settled.max_kl
