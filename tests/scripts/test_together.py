"""Seeds trained as one program are the runs that they would be one by one."""

import jax
import numpy as np
import pytest

import jtrust
from scripts.learning import together, worker
from scripts.learning.suite import Task

pytestmark = pytest.mark.slow

TASK = Task("inverted_pendulum", "brax/inverted_pendulum", 16_384, 0, 1000, "spring")


@pytest.fixture(scope="module")
def runs():
    return together.run(TASK, "trpo", {"num_envs": 32, "unroll_length": 32}, range(3, 5))


@pytest.mark.nightly
def test_every_seed_is_its_own_run(runs):
    assert list(runs) == ["3", "4"]
    environment = jtrust.make_env(TASK.env, **TASK.make)
    trainer = jtrust.make_trainer(
        environment, jtrust.TRPO(), num_envs=32, unroll_length=32, devices=1
    )
    state = trainer.init(jax.random.key(4))
    kls = []
    for _ in range(16):
        state, metrics = trainer.iterate(state)
        kls.append(float(metrics["policy/kl"]))
    train = runs["4"]["train"]
    assert train["step"] == [1024 * (i + 1) for i in range(16)]
    # The first updates: later ones carry the rounding of other orders of sums.
    assert train["kl"][:3] == pytest.approx(kls[:3], rel=1e-2)
    assert runs["3"]["train"]["kl"][0] != pytest.approx(kls[0], rel=1e-2)
    assert max(train["largest_kl"]) <= 0.01


@pytest.mark.nightly
def test_policies_are_evaluated_before_and_at_points_of_the_run(runs):
    for run in runs.values():
        found = run["evaluations"]
        assert found["step"] == [1024 * i for i in range(17)]
        assert len(found["return"]) == len(found["seconds"]) == 17
        assert np.all(np.diff(found["seconds"]) > 0) and run["together"] == 2
        assert all(0 < x <= 1000 for x in found["return"]) and len(set(found["return"])) > 1


def test_settings_go_to_where_their_names_belong():
    settings = {"num_envs": 8, "max_kl": 0.02, "initial_std": 0.5, "fold": False}
    arm = worker.configure(TASK, "npg", settings)
    assert arm.algorithm == jtrust.NPG(max_kl=0.02)
    assert arm.network.initial_std == 0.5
    assert arm.numbers == {"num_envs": 8, "unroll_length": 64}
    assert arm.iterations(TASK) == 32
    assert arm.lacks == ("fold",)
    assert settings["num_envs"] == 8  # as it was
