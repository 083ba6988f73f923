"""Several fits of the values to one rollout: beside the solution of Bellman's equation."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import describe
from jtrust.networks import make_value_network
from jtrust.training.batch_statistics import standardize
from tests.training.test_devices_alike import SMALL, Brief, assert_alike, iterated

pytestmark = pytest.mark.slow

DISCOUNT, STATES = 0.9, 5
REWARDS = np.asarray([0.0, 1.0, 0.0, -1.0, 2.0])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RingState:
    place: jax.Array
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Ring:
    """Five places in a circle, one after another, whatever the action; leaving each is paid for."""

    action_size, observation_size = 1, STATES

    def reset(self, key):
        return self._at(jax.random.randint(key, (), 0, STATES), jnp.float32(0.0))

    def step(self, state, action):
        return self._at((state.place + 1) % STATES, jnp.asarray(REWARDS)[state.place])

    def _at(self, place, reward):
        return RingState(
            place, jax.nn.one_hot(place, STATES), jnp.float32(reward), jnp.float32(0.0)
        )


def true_values():
    following = np.eye(STATES)[(np.arange(STATES) + 1) % STATES]
    return np.linalg.solve(np.eye(STATES) - DISCOUNT * following, REWARDS)


@functools.cache
def errors(rounds, solver, iterations=1, gae_lambda=0.5, value_lambda=None):
    """How far off the values are after some iterations, the largest over places."""
    algorithm = jtrust.TRPO(
        value_rounds=rounds, value_solver=solver, discount=DISCOUNT, gae_lambda=gae_lambda,
        value_lambda=value_lambda, value_learning_rate=3e-3, value_epochs=8, value_damping=1e-5,
        value_cg_iterations=20,
    )
    trainer = jtrust.make_trainer(
        describe(Ring(), "ring", episode_length=10_000), algorithm, num_envs=20, unroll_length=8,
        devices=1, network=SMALL,
    )
    state = trainer.init(jax.random.key(0))
    for _ in range(iterations):
        state, metrics = trainer.iterate(state)
    found = trainer.values(state, jnp.eye(STATES))
    return float(np.abs(np.asarray(found) - true_values()).max()), metrics


@pytest.mark.parametrize("solver", [
    pytest.param("adam", marks=pytest.mark.nightly), "gauss-newton",
])
def test_rounds_bring_values_to_those_of_bellmans_equation_within_one_rollout(solver):
    once, _ = errors(1, solver)
    often, metrics = errors(40, solver)
    assert once > 0.5  # one application of T^λ at λ = 0.5 leaves much of the error
    assert often < 0.15 * once
    assert metrics["value/skipped"] == 0


def test_each_round_of_exact_fits_contracts_the_error_as_the_operator_does():
    """γ (1 - λ) / (1 - γλ) = 0.82 bounds it in every place where windows are long: 8 steps here."""
    bound = DISCOUNT * 0.5 / (1 - DISCOUNT * 0.5)
    found = [errors(rounds, "gauss-newton")[0] for rounds in (1, 2, 4)]
    # With the last layer solved for, which here is all there is to learn, they go faster, down to
    # what float32 leaves of values of this size.
    rounding = 1e-5
    assert rounding < found[1] < found[0] * bound
    assert found[2] < max(found[1] * bound**2, rounding)


@pytest.mark.nightly
def test_a_longer_look_for_the_targets_alone_needs_fewer_rounds():
    short, _ = errors(3, "gauss-newton")
    long, _ = errors(3, "gauss-newton", value_lambda=1.0)
    assert long < 0.7 * short


def test_advantages_are_those_of_the_values_that_the_rounds_end_with():
    algorithm = jtrust.TRPO(value_rounds=5, value_solver="gauss-newton", advantage_floor=0.0)
    trainer = jtrust.make_trainer(Brief(), algorithm, num_envs=16, unroll_length=8, devices=1,
                                  network=SMALL)
    from jtrust.training.mesh import REPLICATED, STATE_SPEC, per_shard
    from jtrust.training.random_keys import environment_keys

    def both(state):
        keys = environment_keys(state, trainer.collection.envs_per_device)
        state, trajectory, _ = trainer.collection(state, keys)
        estimates = trainer.estimation(state, trajectory)
        state, batch, _ = trainer.preparation(state, trajectory, estimates, keys)
        later, refined = trainer.evaluation(state, trajectory, batch)
        by_hand = trainer.estimation(later, trajectory).advantages
        return batch.advantage, refined.advantage, standardize(by_hand)

    program = per_shard(both, trainer.mesh, (STATE_SPEC,), REPLICATED)
    first, refined, by_hand = jax.jit(program)(trainer.init(jax.random.key(0)))
    np.testing.assert_allclose(refined, by_hand, atol=1e-5)
    assert np.abs(np.asarray(first - refined)).max() > 0.1


def test_one_round_is_one_fit_after_the_update():
    plain = iterated(Brief, jtrust.TRPO(), 24, 1)
    named = iterated(Brief, jtrust.TRPO(value_rounds=1, value_solver="adam", parts=1), 24, 1)
    jax.tree.map(np.testing.assert_array_equal, plain, named)


@pytest.mark.parametrize(("kind", "devices"), [
    (jtrust.TRPO, 3),
    *(pytest.param(kind, count, marks=pytest.mark.nightly)
      for kind, count in ((jtrust.TRPO, 2), (jtrust.PPO, 2), (jtrust.PPO, 3))),
])
def test_parts_and_rounds_go_the_same_way_on_several_devices(kind, devices):
    # Damped, for conjugate gradients magnify the order of sums as much as G is ill-conditioned.
    algorithm = kind(parts=4, value_rounds=3, value_solver="gauss-newton", value_damping=0.1)
    grid = jax.random.normal(jax.random.key(0), (50, 2))

    def values(state):
        # Not parameters: a solve takes the order of sums into directions that no state bears out.
        return make_value_network(SMALL, 2, on_cpu=True)(state.value, grid)

    assert_alike(
        iterated(Brief, algorithm, 24, 1), iterated(Brief, algorithm, 24, devices), values,
        rtol=1e-2,
    )
