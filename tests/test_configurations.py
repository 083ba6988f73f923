"""Whatever configuration is accepted trains an iteration; whatever is refused, in one line."""

import jax
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jtrust

KINDS = {
    jtrust.TRPO: {"cg_iterations": st.integers(0, 3), "damping": st.sampled_from([-1.0, 0.0, 0.1])},
    jtrust.NPG: {"fisher_stride": st.integers(0, 9)},
    jtrust.PPO: {"minibatches": st.integers(0, 6), "clip": st.sampled_from([0.0, 0.1, 3.0])},
    jtrust.PPOPenalty: {"epochs": st.integers(0, 2), "target_kl": st.sampled_from([1e-3, 0.9])},
}


@st.composite
def configurations(draw):
    kind = draw(st.sampled_from(list(KINDS)))
    return dict(
        kind=kind,
        hyperparameters={
            **{name: draw(values) for name, values in KINDS[kind].items()},
            "max_kl": draw(st.sampled_from([0.0, 1e-6, 0.01, 1.0, float("nan")])),
            "discount": draw(st.sampled_from([0.0, 0.9, 1.0, 1.1])),
            "value_minibatches": draw(st.integers(1, 6)),
            "value_epochs": draw(st.integers(0, 2)),
        },
        num_envs=draw(st.integers(0, 12)),
        unroll_length=draw(st.integers(0, 12)),
        devices=draw(st.sampled_from([1, 2, 9])),
        network=dict(
            policy_layers=draw(st.sampled_from([(4,), (3, 5), (), (0,)])),
            value_layers=(4,),
            activation=draw(st.sampled_from(["tanh", "relu", "swish", "step"])),
            squash=draw(st.booleans()),
        ),
    )


outcomes = {"trained": 0, "refused": 0}


@settings(max_examples=60, deadline=None, derandomize=True,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configuration=configurations())
def test_accepted_configurations_train_and_others_are_refused_in_one_line(point, configuration):
    kind, hyperparameters = configuration.pop("kind"), configuration.pop("hyperparameters")
    try:
        network = jtrust.NetworkConfig(**configuration.pop("network"))
        trainer = jtrust.make_trainer(
            point, kind(**hyperparameters), network=network, **configuration
        )
    except ValueError as error:
        outcomes["refused"] += 1
        assert isinstance(error, jtrust.BadArgument) and "\n" not in str(error)
        assert error.name and error.remedy
        return
    state, metrics = jax.jit(trainer.iterate)(trainer.init(jax.random.key(0)))
    outcomes["trained"] += 1
    assert metrics["policy/kl"] <= trainer.algorithm.max_kl
    for leaf in jax.tree.leaves((state.policy, state.value, state.observation_moments)):
        assert np.all(np.isfinite(leaf))


def test_both_outcomes_were_seen():
    assert outcomes["trained"] >= 3 and outcomes["refused"] >= 3
