"""Policies that nobody trained, with statistics far from zero and one and weights of all sizes."""

import jax
import jax.numpy as jnp
import numpy as np

from jtrust.environments.base import Box
from jtrust.networks import NetworkConfig, RunningStatistics, make_policy_network
from jtrust.policy import Policy


def make_policy(action=None, config=None, inputs=5, custom=None, key=None, seed=0):
    """A policy whose actions differ from observation to observation."""
    action = Box(3) if action is None else action
    draw = np.random.default_rng(seed)
    network = make_policy_network(config or NetworkConfig((16, 8)), inputs, action, custom)
    params = network.init(jax.random.key(seed), jnp.zeros(inputs))
    params = jax.tree.map(lambda x: x + 0.3 * draw.standard_normal(x.shape).astype("f"), params)
    statistics = RunningStatistics(
        jnp.float32(1e4), jnp.asarray(10 * draw.standard_normal(inputs), jnp.float32),
        jnp.asarray(draw.uniform(0.01, 9, inputs), jnp.float32),
    )
    return Policy(network, action, params, statistics, key)
