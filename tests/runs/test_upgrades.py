"""Checkpoints that earlier versions wrote go on."""

import dataclasses

import jax
import numpy as np
import pytest

import jtrust
from jtrust.runs.arrays import to_arrays
from jtrust.runs.checkpoints import CheckpointWriter
from jtrust.runs.config import RunConfig
from jtrust.runs.restoring import restore


@dataclasses.dataclass
class Earlier:
    """A training state as it was: by name, without what came later, NaN for "no episode yet"."""

    state: object

    def arrays(self):
        arrays = {k: v for k, v in to_arrays(self.state).items() if "rewards_seen" not in k}
        return arrays | {k: np.float32(np.nan) for k in arrays if k.startswith("last_episodes")}


@pytest.fixture
def trainer(point):
    return jtrust.make_trainer(point, jtrust.TRPO(), num_envs=8, unroll_length=8, devices=1)


def test_a_state_without_what_came_later_is_restored_and_trains(trainer, tmp_path, monkeypatch):
    from jtrust.runs import checkpoints

    state = trainer.init(jax.random.key(0))
    monkeypatch.setattr(checkpoints, "to_arrays", lambda s: Earlier(s).arrays())
    writer = CheckpointWriter(tmp_path)
    writer.save(64, state)
    writer.wait()
    writer.close()
    restored, step = restore(trainer, tmp_path)
    assert step == 64 and bool(restored.rewards_seen.tell_apart())
    assert restored.last_episodes == {"return": 0.0, "length": 0.0}
    jax.tree.map(np.testing.assert_array_equal, restored.policy, state.policy)
    after, metrics = trainer.iterate(restored)
    assert metrics["policy/kl"] > 0 and int(after.iteration) == 1


@pytest.mark.parametrize("kind", [jtrust.TRPO, jtrust.PPO])
def test_a_run_that_does_not_say_how_large_rollouts_are_updated_goes_on_as_it_was(point, kind):
    """Parts, rounds and solver came later, with defaults by size that are not what runs did."""
    trainer = jtrust.make_trainer(point, kind(), num_envs=1024, unroll_length=64, devices=1)
    config = RunConfig.describe(trainer, seed=0, total_steps=10**6, checkpoint_every=1)
    given = config.make_algorithm()
    assert given == trainer.algorithm and given.value_rounds > 1  # what is written is what is done
    later = {name for name in config.hyperparameters
             if name.startswith("parts") or name in ("max_kl_std", "value_lambda", "value_rounds",
                                                     "value_solver", "value_cg_iterations",
                                                     "value_damping")}
    old = {k: v for k, v in config.hyperparameters.items() if k not in later}
    old |= {"max_kl": 0.02} | ({"minibatches": None} if kind is jtrust.PPO else {})
    algorithm = dataclasses.replace(config, hyperparameters=old).make_algorithm()
    settled = algorithm.settled(1024, 64)
    assert (settled.parts, settled.value_rounds, settled.value_solver) == (1, 1, "adam")
    assert settled.max_kl == 0.02 and settled.value_lambda in (None, settled.gae_lambda)
    assert getattr(settled, "minibatches", None) is None
