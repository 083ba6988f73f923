"""Where rewards have said nothing, no update is made."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import describe
from tests.conftest import Point

pytestmark = pytest.mark.slow


class Constant(Point):
    """The same reward at every step; episodes end by their time limit alone, or fail."""

    def __init__(self, reward, fails):
        self.paid, self.fails = reward, fails

    def step(self, state, action):
        new = super().step(state, action)
        return dataclasses.replace(
            new, reward=jnp.float32(self.paid) + 0.0 * new.reward,
            done=new.done * self.fails,
        )

    def reset(self, key):
        return dataclasses.replace(super().reset(key), reward=jnp.float32(self.paid))


def trained(env, algorithm, iterations=4):
    trainer = jtrust.make_trainer(
        describe(env, "constant", episode_length=20), algorithm, num_envs=32, unroll_length=16,
        devices=1,
    )
    iterate, state, rows = jax.jit(trainer.iterate), trainer.init(jax.random.key(0)), []
    start = jax.device_get(state)
    for _ in range(iterations):
        state, metrics = iterate(state)
        rows.append({k: float(v) for k, v in metrics.items()})
    return start, jax.device_get(state), rows, trainer


@pytest.mark.parametrize(("algorithm", "reward", "fails"), [
    (jtrust.TRPO(), 0.0, True), (jtrust.PPO(), 1.0, False),
    *(pytest.param(*case, marks=pytest.mark.nightly) for case in (
        (jtrust.TRPO(), 0.0, False), (jtrust.TRPO(), 1.0, False), (jtrust.NPG(), 1.0, False),
        (jtrust.PPOPenalty(), 0.0, False),
    )),
], ids=lambda x: getattr(x, "name", x))
def test_a_constant_reward_moves_no_policy(algorithm, reward, fails):
    """Not the policy, nor Adam's moments, nor a rate or coefficient that adapts."""
    start, end, rows, trainer = trained(Constant(reward, fails), algorithm)
    for row in rows:
        assert row["policy/kl"] == row["policy/kl_limit"] == row["policy/accepted"] == 0
        assert row["policy/step_scale"] == 0 and np.isfinite(list(row.values())).all()
    jax.tree.map(
        np.testing.assert_array_equal, start.policy_optimizer, end.policy_optimizer
    )
    # The same function, though the normaliser moved under it; the first batch's apart.
    x = jax.random.normal(jax.random.key(1), (64, 2))
    fold = trainer.policy(end.policy, end.observation_statistics, x)
    std = fold.log_std
    np.testing.assert_array_equal(std, trainer.policy(start.policy, end.observation_statistics, x
                                                      ).log_std)
    assert end.iteration == 4 and not jax.tree.all(jax.tree.map(
        np.array_equal, start.value, end.value))  # values are fitted all the same


@pytest.mark.parametrize("algorithm", [
    jtrust.TRPO(), pytest.param(jtrust.PPO(), marks=pytest.mark.nightly),
], ids=lambda a: a.name)
def test_failing_under_a_constant_reward_is_a_signal(algorithm):
    _, _, rows, _ = trained(Constant(1.0, True), algorithm)
    assert all(row["policy/accepted"] == 1 and row["policy/kl"] > 1e-6 for row in rows)


class Rare(Constant):
    """Pays only far out, where few get."""

    def step(self, state, action):
        new = super().step(state, action)
        return dataclasses.replace(new, reward=jnp.where(new.position > 1.2, 1.0, 0.0))


def test_updates_begin_with_the_first_reward_and_go_on_where_it_is_not_met_again():
    _, state, rows, _ = trained(Rare(0.0, False), jtrust.TRPO(), iterations=12)
    moved = [row["policy/kl_limit"] > 0 for row in rows]
    first = moved.index(True)
    assert all(moved[first:]) and not any(moved[:first])
    assert (state.rewards_seen.least, state.rewards_seen.most) == (0.0, 1.0)
