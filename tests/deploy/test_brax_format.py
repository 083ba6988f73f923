"""`--format brax`: what brax's own inference function makes of the file."""

import jax
import numpy as np
import pytest

from jtrust.checks import BadArgument
from jtrust.deploy import brax_format
from jtrust.deploy.acting import Acting
from jtrust.deploy.parity import compare, noise_key
from jtrust.environments.base import Bins, Box, Discrete
from jtrust.networks import NetworkConfig
from tests.deploy.policies import make_policy

pytestmark = pytest.mark.slow

POLICIES = {
    "clipped": dict(config=NetworkConfig((8,), activation="elu")),
    "squashed": dict(config=NetworkConfig((8, 8, 8), squash=True)),
    "a deviation each, of a dictionary": dict(
        config=NetworkConfig((8,), state_dependent_std=True, min_std=0.0, initial_std=0.5),
        key="proprioception",
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_modes_and_samples_are_those_of_the_policy(name, tmp_path):
    policy = make_policy(**POLICIES[name])
    brax_format.write(tmp_path / "it", Acting.of(policy, False))
    arguments = brax_format.network_arguments(policy)
    for stochastic in (False, True):
        key = noise_key() if stochastic else None
        runtime = brax_format.Runtime(tmp_path / "it", arguments, key)
        found = compare(Acting.of(policy, stochastic), runtime.batches, runtime.name)
        assert found.largest_difference < 1e-5 and found.runtime.startswith("brax ")


def test_the_deviation_is_the_policys_and_not_only_the_noise_times_something(tmp_path):
    policy = make_policy(config=NetworkConfig((8,), squash=True))
    brax_format.write(tmp_path / "it", Acting.of(policy, False))
    act = brax_format.inference_function(
        tmp_path / "it", brax_format.network_arguments(policy), deterministic=False
    )
    mean = policy.statistics.mean
    _, extras = act(mean[None], jax.random.key(0))
    raw = extras["distribution_params"][0, 3:]
    log_std = policy.distribution(policy.params, policy.statistics, mean).log_std
    np.testing.assert_allclose(np.log1p(np.exp(raw)) + 0.001, np.exp(log_std), rtol=1e-5)


@pytest.mark.parametrize(("policy", "said"), [
    (dict(action=Discrete(3)), "none of brax's networks"),
    (dict(action=Bins(2, 3)), "none of brax's networks"),
    (dict(action=Box(2, low=0.0, high=1.0)), r"act in \[-1, 1\]"),
    (dict(config=NetworkConfig((8,), state_dependent_std=True)), "without a floor"),
    (dict(config=NetworkConfig((8,), squash=True, initial_std=1e-6, min_std=0.0)), "is below"),
])
def test_what_brax_cannot_say_is_refused(policy, said, tmp_path):
    with pytest.raises(BadArgument, match=said):
        brax_format.write(tmp_path / "it", Acting.of(make_policy(**policy), False))
