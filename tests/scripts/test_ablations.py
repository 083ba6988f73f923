"""Trainers with a part taken out lack that part and train all the same."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jtrust
from jtrust.training.mesh import SHARDED, STATE_SPEC, per_shard
from jtrust.training.random_keys import environment_keys
from scripts.learning.ablations import ABLATIONS, without

pytestmark = pytest.mark.slow

SIZES = dict(num_envs=16, unroll_length=16, devices=1)


def trainers(point, part):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), **SIZES)
    return [trainer, without(trainer, part)]


def two_iterations(trainer):
    """States before each of three iterations, and the metrics of the second."""
    iterate = jax.jit(trainer.iterate)
    states = [trainer.init(jax.random.key(0))]
    for _ in range(2):
        state, metrics = iterate(states[-1])
        states.append(state)
    return states, jax.device_get(metrics)


# The others train in the tests below, too.
@pytest.mark.parametrize("part", [
    pytest.param(part, marks=[pytest.mark.nightly] * (part != "standardize")) for part in ABLATIONS
])
def test_what_is_left_trains(point, part):
    states, metrics = two_iterations(trainers(point, part)[1])
    assert metrics["policy/accepted"] == 1 and 0 < metrics["policy/kl"] <= 0.01
    assert states[-1].iteration == 2


def test_without_folding_new_statistics_move_the_policy(point):
    folded, unfolded = [two_iterations(t)[1]["observation/drift_kl"] for t in
                        trainers(point, "fold")]
    assert folded < 1e-9 < 1e-7 < unfolded


def test_without_fresh_starts_episodes_begin_from_the_first_states_again(point):
    for trainer, again in zip(trainers(point, "fresh_starts"), (False, True), strict=True):
        starts = jax.jit(per_shard(
            lambda s, t=trainer: t.collection.reset_pool(s, environment_keys(s, 16)).position,
            trainer.mesh, (STATE_SPEC,), SHARDED,
        ))
        first, _, third = [np.asarray(starts(s)) for s in two_iterations(trainer)[0]]
        assert len(np.unique(first)) == first.size
        assert np.array_equal(first, third) is again


def test_without_spreading_no_first_episode_is_cut_short(point):
    whole, together = trainers(point, "spread")
    cut = [two_iterations(t)[0][1].episodes.head_start for t in (whole, together)]
    assert np.ptp(cut[0]) > 0 and not np.any(cut[1])


def test_without_a_scale_the_value_network_learns_returns_themselves(point):
    scaled, raw = trainers(point, "value_scale")
    for trainer, rest in ((scaled, 1e-3), (raw, 0.0)):
        states, _ = two_iterations(trainer)
        state = states[-1]
        observation = jax.random.normal(jax.random.key(1), (5, 1))
        inputs = state.observation_statistics.normalize(observation)
        difference = trainer.values(state, observation) - trainer.value_network(
            state.value, inputs
        )
        assert np.all(np.abs(difference) <= rest) == (trainer is raw)


def test_without_standardizing_advantages_keep_their_size(point):
    sizes = []
    for trainer in trainers(point, "standardize"):
        def of(state, trainer=trainer):
            keys = environment_keys(state, 16)
            state, trajectory, _ = trainer.collection(state, keys)
            estimates = trainer.estimation(state, trajectory)
            batch = trainer.preparation(state, trajectory, estimates, keys)[1]
            return estimates.advantages, batch.advantage

        run = jax.jit(per_shard(of, trainer.mesh, (STATE_SPEC,), P(None, "envs")))
        sizes.append([np.asarray(x) for x in run(trainer.init(jax.random.key(0)))])
    (whole, standardized), (raw, kept) = sizes
    assert np.std(standardized) == pytest.approx(1, abs=1e-3) and abs(np.std(whole) - 1) > 0.1
    np.testing.assert_array_equal(raw, kept)
