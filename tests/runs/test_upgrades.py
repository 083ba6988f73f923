"""Checkpoints that earlier versions wrote go on."""

import dataclasses

import jax
import numpy as np
import pytest

import jtrust
from jtrust.runs.arrays import to_arrays
from jtrust.runs.checkpoints import CheckpointWriter
from jtrust.runs.run import restore


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
