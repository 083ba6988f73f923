"""Training with memory: carries in rollouts, minibatches by environment, devices, stops, sweeps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms.sequence_minibatches import sequence_epochs
from jtrust.environments import batch, describe
from jtrust.networks.sequence import Sequence
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.training.mesh import REPLICATED, per_shard
from jtrust.training.random_keys import environment_keys
from jtrust.training.rollout import Restarts, rollout
from tests.conftest import Point
from tests.training.test_devices_alike import Brief, assert_alike

STEPS, COUNT = 12, 16
GRU = jtrust.NetworkConfig(
    policy_layers=(8,), value_layers=(8,), memory="gru", memory_size=6
)


def brief():
    return describe(Brief(), "brief", episode_length=7)


def made(algorithm, num_envs=COUNT, network=GRU, **others):
    return jtrust.make_trainer(
        brief(), algorithm, num_envs=num_envs, unroll_length=STEPS, network=network, devices=1,
        **others,
    )


def remembers(memory, observation):
    """A policy that acts by the sum of all observations of the episode, from 1 on."""
    memory = memory + observation[:, :1]
    return jtrust.distributions.DiagonalGaussian(0.3 * memory, jnp.zeros_like(memory)), memory


def follows(memory, observation):
    return 10.0 + memory[..., 0] + observation[..., 0]


@pytest.mark.parametrize("branch", [True, False])
def test_what_is_remembered_ends_with_the_episode(branch):
    environment = brief()
    keys = jax.random.split(jax.random.key(0), COUNT)
    starts = batch.reset_states(environment, keys)
    begun = dataclasses.replace(batch.begin(starts), memory=jnp.full((COUNT, 1), 5.0))
    after, trajectory, _ = jax.jit(functools.partial(
        rollout, environment, remembers, follows, unroll_length=STEPS,
        restarts=Restarts(branch=branch, memory=jnp.ones(1)),
    ))(begun, starts, keys)
    episodes, memory = batch.begin(starts), np.full((COUNT, 1), 5.0)
    for t in range(STEPS):
        memory = memory + np.asarray(trajectory.observation[t][:, :1])
        episodes, outcome = batch.step(environment, episodes, trajectory.action[t])
        expected = 10.0 + memory[:, 0] + outcome.last_observation[:, 0]
        np.testing.assert_allclose(
            trajectory.truncation_value[t], np.where(outcome.truncation, expected, 0), rtol=1e-5
        )
        end = np.asarray(outcome.termination | outcome.truncation)
        np.testing.assert_array_equal(trajectory.end[t], end)
        if t + 1 < STEPS:
            np.testing.assert_array_equal(trajectory.starts[t + 1], end)
        memory[end] = 1.0
        episodes = batch.restart(episodes, starts, outcome.termination | outcome.truncation, t)
    np.testing.assert_allclose(after.memory, memory, rtol=1e-5)
    assert trajectory.truncation.any() and trajectory.termination.any()
    assert not trajectory.starts[0].any()


@pytest.mark.slow
@pytest.mark.nightly
def test_a_trainer_remembers_from_one_rollout_to_the_next():
    """Carries of both networks, and values, against the networks applied step by step."""
    trainer = made(jtrust.TRPO(), network=dataclasses.replace(GRU, memory="lstm"))
    state, _ = trainer.iterate(trainer.init(jax.random.key(0)))
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(state.episodes.memory)) > 0.01

    def collect(state):
        after, trajectory, _ = trainer.collection(state, environment_keys(state, COUNT))
        return after, trajectory, trainer.estimation(after, trajectory)

    after, trajectory, estimates = jax.jit(
        per_shard(collect, trainer.mesh, REPLICATED, REPLICATED)
    )(state)
    agent, memory = trainer.agent, state.episodes.memory
    act, values = jax.jit(agent.act), jax.jit(agent.values_after)
    for t in range(STEPS):
        observation = trajectory.observation[t]
        np.testing.assert_allclose(
            estimates.values[t], values(state, memory, observation), rtol=1e-4, atol=1e-4
        )
        _, memory = act(state, memory, observation)
        for n in np.flatnonzero(trajectory.end[t]):
            memory = jax.tree.map(lambda x, n=n: x.at[n].set(0.0), memory)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, after.episodes.memory, memory)


def test_minibatches_are_of_whole_environments_the_same_on_any_shards():
    keys = jax.random.split(jax.random.key(0), 8)
    number = jnp.broadcast_to(jnp.arange(8.0), (3, 8))
    time = jnp.broadcast_to(jnp.arange(3.0)[:, None], (3, 8))
    data = (Sequence((number, time), number > 3, (jnp.arange(8.0),)), 8 * time + number)

    def step(carry, minibatch):
        sequence, numbers = minibatch
        seen, times = sequence.observation
        np.testing.assert_array_equal(seen.shape, (3, seen.shape[1]))
        return carry, (seen, times, sequence.starts, sequence.carry[0], numbers)

    def visited(part):
        _, found = sequence_epochs(
            step, 0, jax.tree.map(lambda x: x[..., part], data), keys[part], 5, 4
        )
        return found

    seen, times, starts, carry, numbers = map(np.asarray, visited(slice(None)))
    assert seen.shape == (5, 4, 3, 2)
    assert (np.sort(seen[:, :, 0].reshape(5, 8)) == np.arange(8)).all()  # each once a pass
    assert len({tuple(x.ravel()) for x in seen[:, :, 0]}) == 5  # in another order
    assert (seen == seen[:, :, :1]).all() and (times == np.arange(3)[:, None]).all()
    assert (carry == seen[:, :, 0]).all() and (starts == (seen > 3)).all()
    assert (numbers == (8 * times + seen).reshape(5, 4, 6)).all()
    halves = [np.asarray(visited(part)[0]) for part in (slice(0, 4), slice(4, 8))]
    np.testing.assert_array_equal(np.concatenate(halves, axis=-1), seen)


@pytest.mark.slow
def test_weights_of_memory_that_have_no_rate_stay():
    trainer = made(jtrust.PPO(minibatches=4, memory_rate=0.0))
    state = trainer.init(jax.random.key(0))
    before = jax.tree.map(np.array, state.policy)
    mask = trainer.agent.policy_network.of_memory(before)
    after = trainer.iterate(state)[0].policy
    moved = jax.tree.map(lambda a, b: np.abs(a - b), after, before)
    of_memory = jax.tree.map(lambda x, m: np.where(m, x, 0).max(), moved, mask)
    others = jax.tree.map(lambda x, m: np.where(m, 0, x).max(), moved, mask)
    assert max(jax.tree.leaves(of_memory)) == 0 and max(jax.tree.leaves(others)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [
    jtrust.PPO(minibatches=4),
    jtrust.NPG(parts=2, value_rounds=3, value_solver="gauss-newton", max_kl=0.02),
    pytest.param(
        jtrust.PPOPenalty(parts=2, value_rounds=2, max_kl=0.05), marks=pytest.mark.nightly,
    ),
])
def test_every_algorithm_keeps_to_its_trust_region_with_memory(algorithm):
    trainer = made(algorithm)
    state = trainer.init(jax.random.key(0))
    for _ in range(4):
        state, metrics = trainer.iterate(state)
    assert 0 < metrics["policy/kl"] <= algorithm.max_kl
    assert metrics["observation/drift_kl"] < 1e-9
    assert metrics["policy/skipped"] == 0 and metrics["value/skipped"] == 0
    assert 0.3 < metrics["policy/kl"] / metrics["policy/kl_predicted"] < 3
    assert np.isfinite(metrics["value/explained_variance"])


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [
    pytest.param(jtrust.TRPO(value_minibatches=4), marks=pytest.mark.nightly),
    jtrust.PPO(minibatches=4, value_minibatches=4),
])
def test_memory_goes_the_same_way_on_two_devices(algorithm):
    @functools.cache
    def iterated(devices):
        trainer = jtrust.make_trainer(
            brief(), algorithm, num_envs=24, unroll_length=16, devices=devices, network=GRU,
        )
        state = trainer.init(jax.random.key(0))
        for _ in range(2):
            state, metrics = trainer.iterate(state)
        return jax.device_get((dataclasses.replace(state, key=0), metrics))

    assert_alike(iterated(1), iterated(2))
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4),
        iterated(1)[0].episodes.memory, iterated(2)[0].episodes.memory,
    )


@pytest.mark.slow
def test_a_run_with_memory_goes_on_exactly_and_is_a_member_of_a_sweep(tmp_path):
    """Point's episodes are longer than a rollout: what it remembers has to be in checkpoints."""
    options = dict(num_envs=8, unroll_length=8, devices=1, network=GRU)
    environment = describe(Point(), "point", episode_length=50)
    algorithm = jtrust.PPO(minibatches=4)
    whole = jtrust.train(
        environment, algorithm, total_steps=64 * 6, run_dir=tmp_path / "whole",
        checkpoint_every=3, **options,
    )
    jtrust.train(
        environment, algorithm, total_steps=64 * 3, run_dir=tmp_path / "cut", checkpoint_every=3,
        **options,
    )
    jtrust.resume(tmp_path / "cut", 64 * 6, env=environment, devices=1)
    (step, ours), (other, theirs) = (
        CheckpointReader(tmp_path / name).newest_whole(None) for name in ("whole", "cut")
    )
    assert step == other == 64 * 6 and set(ours) == set(theirs)
    remembered = [key for key in ours if "memory" in key]
    # Of policy and value each: the cell's, the observation before, whether there is one.
    assert len(remembered) == 6 and all(np.abs(ours[key]).max() > 0.01 for key in remembered)
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key])

    many = jtrust.train_many(
        environment, algorithm, seeds=2, total_steps=64 * 6, **options
    )
    for key in ("episode/return", "policy/kl", "value/loss"):
        np.testing.assert_allclose(many.members[0].metrics[key], whole.metrics[key], rtol=5e-3)


@pytest.mark.parametrize(("algorithm", "words"), [
    (jtrust.PPO(minibatches=3), "minibatches=3: must divide the environments"),
    (jtrust.TRPO(value_minibatches=32), "value_minibatches=32: must divide the environments"),
])
def test_minibatches_that_would_cut_environments_are_refused(algorithm, words):
    with pytest.raises(jtrust.BadArgument) as error:
        made(algorithm)
    assert words in str(error.value) and "such as" in str(error.value)


def test_numbers_of_environments_that_no_default_divides_have_one_that_does():
    assert made(jtrust.PPO(), num_envs=13).num_envs == 13
