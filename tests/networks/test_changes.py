"""What networks with memory read of the step before, against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.networks import RunningStatistics, make_policy_network
from jtrust.networks.changes import Changes, default_gain
from jtrust.networks.sequence import Sequence
from jtrust.training.build import make_trainer

STEPS, COUNT, INPUTS, GAIN = 6, 2, 3, 4.0


def made():
    changes = Changes(INPUTS, 5, GAIN, jax.nn.initializers.orthogonal())
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[1], (STEPS, COUNT, INPUTS))
    starts = jnp.zeros((STEPS, COUNT), bool).at[3, 1].set(True)
    return changes, changes.init(keys[0]), x, starts


def plainly(params, x, starts):
    """clip(gain V (x_t - x_{t-1})), nothing where an episode begins with t."""
    kernel, x = np.asarray(params["kernel"]), np.asarray(x)
    added = np.zeros((STEPS, COUNT, 5))
    for t in range(1, STEPS):
        for n in range(COUNT):
            if not starts[t, n]:
                added[t, n] = np.clip(GAIN * (x[t, n] - x[t - 1, n]) @ kernel, -5, 5)
    return added


def test_what_is_added_is_the_change_since_the_step_before_within_its_episode():
    changes, params, x, starts = made()
    expected = plainly(params, x, starts)
    assert (np.abs(expected) == 5).any() and (np.abs(expected) < 5).any()
    added, after = changes.unroll(params, changes.initial_carry((COUNT,)), x, starts)
    np.testing.assert_allclose(added, expected, rtol=1e-5, atol=1e-5)
    again, _ = changes.step(params, after, x[0])
    np.testing.assert_allclose(
        again, np.clip(GAIN * (x[0] - x[-1]) @ params["kernel"], -5, 5), rtol=1e-5, atol=1e-5
    )


def test_what_is_remembered_outlasts_new_statistics():
    changes, params, x, starts = made()
    old = RunningStatistics(jnp.float32(9), jnp.full(INPUTS, 0.5), jnp.full(INPUTS, 2.0))
    new = RunningStatistics(jnp.float32(20), jnp.arange(3.0), jnp.linspace(0.5, 3.0, INPUTS))
    raw = x * old.std() + old.mean
    whole, _ = changes.unroll(params, changes.initial_carry((COUNT,)), x, starts)
    _, carry = changes.unroll(params, changes.initial_carry((COUNT,)), x[:2], starts[:2])
    folded = changes.fold(params, old, new)
    rest, _ = changes.unroll(folded, carry, new.normalize(raw[2:]), starts[2:])
    np.testing.assert_allclose(rest, whole[2:], rtol=1e-4, atol=1e-5)


def test_the_frame_of_what_is_remembered_is_not_trained():
    config = jtrust.NetworkConfig((4,), memory="gru", memory_size=3)
    network = make_policy_network(config, INPUTS, jtrust.environments.base.Box(1))
    _, _, x, starts = made()
    params = network.init(jax.random.key(1), x[0, 0])
    params["head"] = jax.tree.map(lambda p: p + 0.1, params["head"])
    sequence = Sequence(x, starts, network.initial_carry((COUNT,)))
    gradient = jax.grad(lambda p: jnp.sum(network(p, sequence).mean))(params)
    assert float(jnp.abs(gradient["changes"]["kernel"]).max()) > 0
    for name in ("scale", "shift"):
        np.testing.assert_array_equal(gradient["changes"][name], 0.0)


@pytest.mark.parametrize(("dt", "gain"), [(0.01, 20.0), (0.05, 4.0), (1.0, 1.0), (None, 1.0)])
def test_a_change_counts_as_one_in_a_fifth_of_a_second(dt, gain):
    assert default_gain(dt) == gain


def test_a_run_says_what_its_gain_was(point):
    trainer = make_trainer(
        point, jtrust.TRPO(), num_envs=64, network=jtrust.NetworkConfig(memory="gru")
    )
    assert trainer.network.change_gain == 1.0
    without = make_trainer(
        point, jtrust.TRPO(), num_envs=64,
        network=jtrust.NetworkConfig(memory="gru", change_gain=0),
    )
    assert "changes" not in without.policy_network.init(jax.random.key(0), jnp.zeros(2))
    with pytest.raises(jtrust.checks.BadArgument, match="change_gain=-1"):
        jtrust.NetworkConfig(change_gain=-1)
