"""One iteration is the same on any number of devices that is accepted."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch, describe
from tests.conftest import Point

pytestmark = pytest.mark.slow

SMALL = jtrust.NetworkConfig(policy_layers=(16,), value_layers=(16,))


class Brief(Point):
    """Episodes end every few steps, so that many start states are handed out in a rollout."""

    def step(self, state, action):
        state = super().step(state, action)
        return dataclasses.replace(state, done=(jnp.abs(state.position) > 0.6).astype(jnp.float32))


class NoGoodStart(Brief):
    """One start in five is not finite."""

    def reset(self, key):
        state = super().reset(key)
        bad = jnp.where(jax.random.uniform(jax.random.fold_in(key, 1)) < 0.2, jnp.nan, 1.0)
        return dataclasses.replace(state, obs=state.obs * bad)


@functools.cache
def iterated(kind, algorithm, num_envs, devices, iterations=2):
    trainer = jtrust.make_trainer(
        describe(kind(), "brief", episode_length=7), algorithm, num_envs=num_envs,
        unroll_length=16, devices=devices, network=SMALL,
    )
    state = trainer.init(jax.random.key(0))
    for _ in range(iterations):
        state, metrics = trainer.iterate(state)
    return jax.device_get((dataclasses.replace(state, key=0), metrics))


def assert_alike(first, second, values=lambda state: state.value, rtol=2e-3):
    """`values`: state -> what of the value network has to agree, within `rtol`; by default its
    parameters."""
    (one, metrics), (other, others) = first, second
    np.testing.assert_array_equal(one.episodes.length, other.episodes.length)
    np.testing.assert_allclose(
        one.episodes.state.position, other.episodes.state.position, atol=1e-3
    )
    assert metrics["episode/count"] == others["episode/count"] > 10
    assert metrics["environment/nonfinite"] == others["environment/nonfinite"]
    close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-4)
    jax.tree.map(close, one.policy, other.policy)
    jax.tree.map(functools.partial(close, rtol=rtol, atol=rtol / 10), values(one), values(other))
    close(metrics["policy/kl"], others["policy/kl"])


@pytest.mark.parametrize(("algorithm", "devices"), [
    *(pytest.param(jtrust.TRPO, count, marks=pytest.mark.nightly) for count in (2, 3, 4, 6)),
    (jtrust.TRPO, 8), (jtrust.PPO, 3),
])
def test_24_environments_go_the_same_way_on_any_number_of_devices(algorithm, devices):
    """Three to twenty-four on each: groups of eight start states reach over devices."""
    algorithm = algorithm()
    assert_alike(
        iterated(Brief, algorithm, 24, 1), iterated(Brief, algorithm, 24, devices)
    )


@pytest.mark.parametrize(("num_envs", "devices"), [
    pytest.param(8, 2, marks=pytest.mark.nightly), (12, 4),
])
def test_other_numbers_of_environments_do_too(num_envs, devices):
    algorithm = jtrust.TRPO(value_minibatches=4)
    assert_alike(
        iterated(Brief, algorithm, num_envs, 1, 4), iterated(Brief, algorithm, num_envs, devices, 4)
    )


@pytest.mark.nightly
def test_starts_that_are_not_finite_are_replaced_alike():
    algorithm = jtrust.TRPO(value_minibatches=4)
    assert_alike(
        iterated(NoGoodStart, algorithm, 24, 1), iterated(NoGoodStart, algorithm, 24, 8)
    )


def test_a_number_of_devices_that_would_change_the_minibatches_is_refused():
    arguments = dict(num_envs=24, unroll_length=10)  # 8 minibatches: 2 slices, 4 environments
    jtrust.make_trainer(Point(), jtrust.TRPO(), devices=3, **arguments)
    with pytest.raises(jtrust.BadArgument, match=r"devices=8: .*value_minibatches, such as"):
        jtrust.make_trainer(Point(), jtrust.TRPO(), devices=8, **arguments)
    jtrust.make_trainer(Point(), jtrust.TRPO(value_minibatches=6), devices=8, **arguments)


def test_an_accelerator_asks_nothing_of_the_host_and_goes_the_same_way():
    """Without the two conditionals of each step, which only a CPU is given."""
    environment = describe(Brief(), "brief", episode_length=7)
    keys = jax.random.split(jax.random.key(0), 16)
    starts = batch.reset_states(environment, keys)
    episodes = batch.begin(batch.reset_states(environment, jax.vmap(jax.random.fold_in, (0, None))(
        keys, 1)))
    action = jax.random.normal(jax.random.key(1), (16, 1))
    ended = 0

    @functools.partial(jax.jit, static_argnames="branch")
    def step(episodes, t, branch):
        moved, outcome = batch.step(environment, episodes, action)
        end = outcome.termination | outcome.truncation
        return batch.restart(moved, starts, end, t, branch=branch), jnp.sum(end)

    with_branch = without = episodes
    for t in range(12):
        with_branch, count = step(with_branch, t, True)
        without, _ = step(without, t, False)
        ended += int(count)
    jax.tree.map(np.testing.assert_array_equal, with_branch, without)
    assert ended > 16
    one, other = (str(jax.make_jaxpr(lambda e, b=b: step(e, 0, b))(episodes)) for b in (0, 1))
    assert "cond" not in one and "cond" in other
