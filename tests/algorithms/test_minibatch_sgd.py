"""Minibatches against what they promise, by labelling every element of a batch with its own number.

Shards are simulated by splitting the environments, and their keys, into equal consecutive parts.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms.minibatch_sgd import minibatch_epochs, minibatches_for

pytestmark = pytest.mark.slow

# (steps, environments, minibatches): dividing the steps, sharing a factor with them, and neither.
SIZES = [(8, 4, 4), (8, 8, 1), (6, 8, 4), (5, 4, 2), (12, 16, 8), (1, 8, 4), (16, 1, 4), (7, 6, 3)]


def labels(steps, environments):
    return jnp.arange(steps * environments).reshape(steps, environments)


@functools.partial(jax.jit, static_argnums=(2, 3))
def scan_minibatches(data, keys, epochs, minibatches):
    return minibatch_epochs(lambda carry, b: (carry, b), 0, data, keys, epochs, minibatches)[1]


def collect(data, keys, epochs, minibatches):
    """The minibatches themselves, [epochs, minibatches, B, ...] each leaf."""
    return jax.tree.map(np.asarray, scan_minibatches(data, keys, epochs, minibatches))


def environment_keys(environments, seed=0):
    return jax.random.split(jax.random.key(seed), environments)


@pytest.mark.parametrize(("steps", "environments", "minibatches"), SIZES)
def test_each_epoch_visits_each_element_once(steps, environments, minibatches):
    data = labels(steps, environments)
    seen = collect(data, environment_keys(environments), 3, minibatches)
    assert seen.shape == (3, minibatches, steps * environments // minibatches)
    for epoch in seen:
        np.testing.assert_array_equal(np.sort(epoch, axis=None), np.arange(data.size))


@pytest.mark.parametrize("shards", [2, 4])
@pytest.mark.parametrize(
    ("steps", "environments", "minibatches"), [(8, 4, 4), (6, 8, 4), (5, 8, 2), (12, 16, 8)]
)
def test_minibatches_do_not_depend_on_the_number_of_shards(
    steps, environments, minibatches, shards
):
    data, keys = labels(steps, environments), environment_keys(environments)
    whole = collect(data, keys, 2, minibatches)
    parts = [
        collect(d, k, 2, minibatches)
        for d, k in zip(jnp.split(data, shards, axis=1), jnp.split(keys, shards), strict=True)
    ]
    union = np.concatenate(parts, axis=-1)
    np.testing.assert_array_equal(np.sort(union, axis=-1), np.sort(whole, axis=-1))


def test_minibatches_differ_within_an_epoch_between_epochs_and_between_keys():
    data = labels(32, 4)
    seen = np.sort(collect(data, environment_keys(4), 4, 4), axis=-1)
    other = np.sort(collect(data, environment_keys(4, seed=1), 4, 4), axis=-1)
    distinct = {tuple(batch) for batch in seen.reshape(16, -1)}
    assert len(distinct) == 16
    assert (seen != other).any(axis=(1, 2)).all()


def test_different_epochs_have_different_orders():
    seen = collect(labels(31, 1), environment_keys(1), 6, 1)[:, 0]
    assert len({tuple(order) for order in seen}) == 6
    strides = {int(order[1] - order[0]) % 31 for order in seen}
    assert len(strides) > 1


def test_environments_have_orders_of_their_own():
    seen = collect(labels(31, 8), environment_keys(8), 3, 1)[:, 0]
    # Three epochs together: within one, two of eight share an order by chance now and then.
    orders = {tuple(seen[seen % 8 == n] // 8) for n in range(8)}
    assert len(orders) == 8


def test_the_same_keys_give_the_same_minibatches():
    data, keys = labels(8, 4), environment_keys(4)
    np.testing.assert_array_equal(collect(data, keys, 2, 4), collect(data, keys, 2, 4))


def test_every_environment_gives_the_same_number_of_steps_to_each_minibatch():
    seen = collect(labels(12, 6), environment_keys(6), 2, 4)
    for batch in seen.reshape(8, -1):
        np.testing.assert_array_equal(np.bincount(batch % 6), np.full(6, 3))


def test_leaves_stay_together():
    label = labels(6, 8)
    data = {"label": label, "vector": label[..., None] * jnp.array([1.0, 10.0]), "flag": label > 9}
    seen = collect(data, environment_keys(8), 2, 4)
    np.testing.assert_array_equal(seen["vector"], seen["label"][..., None] * [1.0, 10.0])
    np.testing.assert_array_equal(seen["flag"], seen["label"] > 9)


def test_the_carry_goes_through_every_minibatch_in_turn():
    def step(carry, batch):
        count, total = carry
        return (count + 1, total + jnp.sum(batch)), count

    (count, total), order = minibatch_epochs(
        step, (jnp.int32(0), jnp.int32(0)), labels(8, 4), environment_keys(4), 3, 4
    )
    assert (int(count), int(total)) == (12, 3 * sum(range(32)))
    np.testing.assert_array_equal(order, np.arange(12).reshape(3, 4))


@pytest.mark.parametrize(("steps", "shards", "count"), [
    (64 * 64, 1, 8), (64 * 1024, 1, 128), (64 * 1024 // 8, 8, 128),  # 512 steps each, on any shards
    (64 * 16, 1, 8), (64 * 8192, 1, 128),  # never fewer than 8, nor more than 128
    (5 * 3, 1, 5), (7, 2, 7), (127 * 2, 1, 2), (50 * 100, 1, 8),  # always a divisor
])
def test_the_default_number_of_minibatches(steps, shards, count):
    assert minibatches_for(steps, shards) == count
    assert steps % count == 0


@pytest.mark.nightly
@pytest.mark.parametrize("kind", [jtrust.TRPO, jtrust.PPO])
def test_a_larger_rollout_is_cut_into_more_minibatches(point, kind):
    """By default as with the number that the rollout of 8192 steps calls for, given by name."""
    def trained(count, devices=1):
        names = ["value_minibatches"] + ["minibatches"] * (kind is jtrust.PPO)
        algorithm = kind(**{} if count is None else dict.fromkeys(names, count))
        trainer = jtrust.make_trainer(
            point, algorithm, num_envs=128, unroll_length=64, devices=devices
        )
        return jax.device_get(trainer.iterate(trainer.init(jax.random.key(0)))[0].value)

    default = trained(None)
    jax.tree.map(np.testing.assert_array_equal, default, trained(16))
    close = functools.partial(np.testing.assert_allclose, atol=1e-4)
    jax.tree.map(close, default, trained(None, devices=2))
    far = jax.tree.map(lambda a, b: np.abs(a - b).max(), default, trained(8))
    assert max(jax.tree.leaves(far)) > 1e-3
