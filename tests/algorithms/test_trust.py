"""Advantages that are small beside the returns: shorter steps, by the share that they are worth."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms import Batch
from jtrust.networks.running_statistics import RunningStatistics
from jtrust.training.batch_statistics import trust
from jtrust.training.mesh import REPLICATED, SHARDED, make_mesh, per_shard

pytestmark = pytest.mark.slow

ALGORITHMS = [jtrust.TRPO(), jtrust.NPG(), jtrust.PPO(), jtrust.PPOPenalty()]


@pytest.mark.parametrize(("spread", "share"), [
    (30.0, 1.0),     # a tenth of the returns: worth a full step
    (0.9, 1.0),      # just their floor
    (0.3, 1 / 9),    # a third of it: a third of the step, a ninth of the KL
    (0.09, 1 / 100),
    (1e-6, 1e-3),    # and never less
])
@pytest.mark.parametrize("mean", [300.0, -300.0])
def test_the_share_is_the_square_of_the_spread_over_its_floor(spread, share, mean):
    advantages = np.random.default_rng(0).normal(size=(64, 16))
    advantages = (advantages - advantages.mean()) / advantages.std() * spread + 5.0
    targets = RunningStatistics(jnp.float32(1.0), jnp.float32(mean), jnp.float32(0.0))
    program = per_shard(
        lambda x: trust(x, targets, 0.003), make_mesh(8, 64), SHARDED, REPLICATED
    )
    assert jax.jit(program)(advantages.astype(np.float32)) == pytest.approx(share, rel=1e-3)


def test_the_spread_of_returns_counts_as_their_size_too_and_a_floor_of_zero_trusts_all():
    one = per_shard(
        lambda x, floor: trust(
            x, RunningStatistics(jnp.float32(1.0), jnp.float32(3.0), jnp.float32(16.0)), floor[0]
        ),
        make_mesh(1, 8), REPLICATED, REPLICATED,
    )
    x = jnp.asarray([[-1.0, 1.0]])
    assert one(x, jnp.asarray([0.4])) == pytest.approx((1 / (0.4 * 5)) ** 2)
    assert one(x, jnp.asarray([0.0])) == 1.0
    assert one(0.0 * x, jnp.asarray([0.0])) == pytest.approx(1e-3)


def batch_of(trust, steps=16, envs=32):
    keys = jax.random.split(jax.random.key(5), 4)
    observation = jax.random.normal(keys[0], (steps, envs, 2))
    advantage = jax.random.normal(keys[2], (steps, envs))
    return Batch(
        observation, observation, jax.random.normal(keys[1], (steps, envs, 1)),
        (advantage - advantage.mean()) / advantage.std(), observation[..., 0],
        jax.random.split(keys[3], envs), trust,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_no_algorithm_moves_further_than_its_share(point, algorithm):
    algorithm = dataclasses.replace(algorithm, max_kl=0.01)
    trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
    state = trainer.init(jax.random.key(0))

    @jax.jit
    def moved(trust):
        new, _, metrics = algorithm.update(
            state.policy_optimizer, state.policy, trainer.policy_network, batch_of(trust)
        )
        return new, metrics

    whole, part = moved(1.0)[1], moved(0.04)[1]
    assert part["policy/accepted"] and 0 < part["policy/kl"] <= 0.04 * 0.01
    assert part["policy/kl_limit"] == pytest.approx(0.0004)
    assert whole["policy/kl"] > 0.001  # so that the share was what bounded it
    if algorithm.name in ("trpo", "npg"):
        # One direction: the lengths go with the root.
        (a, _), (b, _) = moved(1.0), moved(0.04)
        a, b = (
            np.concatenate([np.ravel(x - y) for x, y in zip(
                jax.tree.leaves(new), jax.tree.leaves(state.policy), strict=True
            )]) for new in (a, b)
        )
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) == pytest.approx(1, abs=1e-3)
        ratio = np.linalg.norm(b) / np.linalg.norm(a) * whole["policy/step_scale"]
        assert ratio / part["policy/step_scale"] == pytest.approx(0.2, rel=1e-3)


@pytest.mark.nightly
def test_a_coefficient_rises_after_an_update_that_was_drawn_back(point):
    """Where it went is inside the limit, and below what makes β rise; where it wanted to go not."""
    algorithm = jtrust.PPOPenalty(target_kl=0.01, max_kl=0.012, learning_rate=0.3)
    trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
    state = trainer.init(jax.random.key(0))
    _, new, metrics = algorithm.update(
        state.policy_optimizer, state.policy, trainer.policy_network, batch_of(1.0)
    )
    assert metrics["policy/step_scale"] < 1 and metrics["policy/kl"] < 1.5 * 0.01
    assert new.kl_coefficient == 2 * state.policy_optimizer.kl_coefficient
    assert new.rate_scale == 1


@pytest.mark.parametrize("algorithm", [jtrust.PPO(), jtrust.PPOPenalty()], ids=lambda a: a.name)
def test_an_update_is_judged_by_the_share_that_was_allowed(point, algorithm):
    """A hundredth of the target is no short step where a hundredth was to be had."""
    trainer = jtrust.make_trainer(point, algorithm, num_envs=32, unroll_length=16, devices=1)
    state = trainer.init(jax.random.key(0))
    _, new, metrics = algorithm.update(
        state.policy_optimizer, state.policy, trainer.policy_network, batch_of(0.01)
    )
    assert metrics["policy/kl"] < 0.01 * 0.05
    assert algorithm.judge(metrics["policy/kl"]) == (False, True)  # by the whole target
    assert metrics["policy/step_scale"] < 1  # by its share it had to be drawn back
    if algorithm.name == "ppo":
        assert new.rate_scale == pytest.approx(1 / 1.1)
    else:
        assert new.kl_coefficient == 2
