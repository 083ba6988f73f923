"""Whatever configuration is accepted trains an iteration; whatever is refused, in one line."""

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jtrust

pytestmark = pytest.mark.slow

KINDS = {
    jtrust.TRPO: {"cg_iterations": st.integers(1, 3), "damping": st.sampled_from([0.0, 0.1])},
    jtrust.NPG: {"fisher_stride": st.integers(1, 9)},
    jtrust.PPO: {"minibatches": st.sampled_from([1, 2, 4]), "clip": st.sampled_from([0.1, 1.0])},
    jtrust.PPOPenalty: {"epochs": st.integers(1, 2), "adaptive": st.booleans()},
}
SHARED = {
    "max_kl": st.sampled_from([0.01, 1.0]),
    "discount": st.sampled_from([0.0, 0.9, 1.0]),
    "value_minibatches": st.sampled_from([1, 2, 3, 4]),
    "value_epochs": st.integers(1, 2),
}
SIZES = {
    "num_envs": st.sampled_from([1, 2, 6, 8, 12]),
    "unroll_length": st.sampled_from([1, 4, 5, 8]),
    "devices": st.sampled_from([1, 1, 2]),
    "action_bins": st.sampled_from([None, None, 2, 5]),
}
NETWORK = {
    "policy_layers": st.sampled_from([(4,), (3, 5)]),
    "activation": st.sampled_from(["tanh", "relu", "swish"]),
    "initialization": st.sampled_from(["orthogonal", "he_uniform"]),
    "squash": st.booleans(),
    "state_dependent_std": st.booleans(),
}
WRONG = st.sampled_from([0, -1, 2.5, float("nan"), float("inf"), None, "x", True, (), 10**9])


@st.composite
def configurations(draw):
    """Mostly what will do; in every other one, one entry that may not."""
    kind = draw(st.sampled_from(list(KINDS)))
    parts = {
        "hyperparameters": {k: draw(v) for k, v in {**SHARED, **KINDS[kind]}.items()},
        "sizes": {k: draw(v) for k, v in SIZES.items()},
        "network": {k: draw(v) for k, v in NETWORK.items()},
    }
    if draw(st.booleans()):
        part = parts[draw(st.sampled_from(sorted(parts)))]
        part[draw(st.sampled_from(sorted(part)))] = draw(WRONG)
    return kind, parts


outcomes = {"trained": 0, "refused": 0}


@settings(max_examples=24, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configuration=configurations())
def run_configurations(point, configuration):
    kind, parts = configuration
    try:
        network = jtrust.NetworkConfig(**parts["network"])
        algorithm = kind(**parts["hyperparameters"])
        trainer = jtrust.make_trainer(point, algorithm, network=network, **parts["sizes"])
    except ValueError as error:
        outcomes["refused"] += 1
        assert isinstance(error, jtrust.BadArgument) and "\n" not in str(error)
        assert error.name and error.remedy
        return
    state, metrics = trainer.iterate(trainer.init(jax.random.key(0)))
    outcomes["trained"] += 1
    assert metrics["policy/kl"] <= trainer.algorithm.max_kl
    for leaf in jax.tree.leaves((state.policy, state.value, state.observation_statistics)):
        assert np.all(np.isfinite(leaf))


@pytest.mark.nightly
def test_accepted_configurations_train_and_others_are_refused_in_one_line(point):
    run_configurations(point)
    assert outcomes["trained"] >= 5 and outcomes["refused"] >= 5
