"""Counted operations against those that arithmetic gives."""

import jax
import jax.numpy as jnp
import pytest

import jtrust
from jtrust.networks import NetworkConfig
from jtrust.profiling.flops import count_flops, measured_peak


def test_a_product_of_matrices_is_2mnk():
    assert count_flops(jnp.matmul, jnp.ones((3, 5)), jnp.ones((5, 7))) == 2 * 3 * 5 * 7
    batched = count_flops(jnp.matmul, jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7)))
    assert batched == 4 * 2 * 3 * 5 * 7


def test_loops_count_their_turns_and_branches_their_dearest():
    x = jnp.ones((8, 8))

    def chain(x):
        return jax.lax.scan(lambda c, _: (c @ c, None), x, length=6)[0]

    assert count_flops(chain, x) == 6 * 2 * 8**3
    assert count_flops(jax.jit(chain), x) == 6 * 2 * 8**3

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: x @ x @ x, lambda: x + 1.0)

    assert count_flops(either, x) == 2 * 2 * 8**3


def test_elementwise_work_counts_and_moving_data_does_not():
    x = jnp.ones((10, 3))
    assert count_flops(lambda x: jnp.tanh(x) * 2.0, x) == 60
    assert count_flops(lambda x: x.T.reshape(-1)[::2], x) == 0
    assert count_flops(lambda n: n + 1, jnp.arange(5)) == 0  # integers


@pytest.mark.parametrize("devices", [1, 4])
def test_an_iteration_counts_at_least_its_networks_on_any_number_of_devices(point, devices):
    sizes = (32, 32)
    trainer = jtrust.make_trainer(
        point, jtrust.TRPO(fisher_stride=1), num_envs=64, unroll_length=16, devices=devices,
        network=NetworkConfig(policy_layers=sizes, value_layers=sizes),
    )
    observations = trainer.environment.observation.shape[0]
    forward = 2 * (observations * 32 + 32 * 32 + 32) * trainer.steps_per_iteration
    algorithm = trainer.algorithm
    # A product is a pass forward and one back (2 forward passes' worth at least), a value step 3.
    least = forward * (2 * algorithm.cg_iterations + 3 * algorithm.value_epochs)
    found = count_flops(trainer.iterate, trainer.init(jax.random.key(0)))
    assert least < found < 10 * least


def test_the_devices_reach_some_rate():
    assert 1e8 < measured_peak(jax.devices()[:1], repeats=1) < 1e16
