"""A stored training state, on the devices again."""

from __future__ import annotations

import os

import jax
from jax.sharding import NamedSharding

from jtrust.runs.checkpoints import CheckpointReader, from_arrays
from jtrust.runs.upgrades import upgraded
from jtrust.training import Trainer, TrainState
from jtrust.training.mesh import STATE_SPEC


def restore(
    trainer: Trainer, run_dir: str | os.PathLike, step: int | None = None
) -> tuple[TrainState, int]:
    """A stored training state, placed on the trainer's devices, and its step."""
    reader = CheckpointReader(run_dir)
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    step, arrays = reader.newest_whole(step, like=like)
    host_state = from_arrays(upgraded(arrays), like, str(reader.directory / str(step)))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(trainer.mesh, spec), STATE_SPEC,
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    # Copied, so that the device owns memory which the first iteration may overwrite.
    placed = jax.jit(lambda s: jax.tree.map(jax.numpy.copy, s), out_shardings=shardings)(host_state)
    return placed, step
