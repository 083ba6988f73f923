"""A stored training state, on the devices again."""

from __future__ import annotations

import os
import warnings
from typing import Any

import jax
from jax.sharding import NamedSharding

from jtrust import checks
from jtrust.hosts.group import Hosts
from jtrust.runs.arrays import by_name
from jtrust.runs.checkpoints import CheckpointReader, DamagedCheckpoint, from_arrays
from jtrust.runs.shards import checksums
from jtrust.runs.upgrades import upgraded
from jtrust.training import Trainer, TrainState
from jtrust.training.mesh import STATE_SPEC


def restore(
    trainer: Trainer, run_dir: str | os.PathLike, step: int | None = None
) -> tuple[TrainState, int]:
    """A stored training state, placed on the trainer's devices, and its step.

    Where these belong to several processes, each reads its own rows, and all take the newest
    checkpoint that every one of them can read.

    Raises:
      BadArgument: no checkpoint is whole, or the newest that is does not fit.
      ToldElsewhere: so in another process.
    """
    hosts = Hosts.of(trainer.mesh)
    reader = CheckpointReader(run_dir)
    like = jax.eval_shape(trainer.init, jax.random.key(0))
    shardings = jax.tree.map(
        lambda spec: NamedSharding(trainer.mesh, spec), STATE_SPEC,
        is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec),
    )
    if hosts.several:
        step, arrays = _read_together(reader, like, shardings, hosts, step)
    else:
        step, arrays = reader.newest_whole(step, like=like)
    state = from_arrays(upgraded(arrays), like, str(reader.directory / str(step)))
    # Copied, so that the device owns memory which the first iteration may overwrite.
    placed = jax.jit(lambda s: jax.tree.map(jax.numpy.copy, s), out_shardings=shardings)(state)
    return placed, step


def _read_together(
    reader: CheckpointReader, like: TrainState, shardings: TrainState, hosts: Hosts,
    step: int | None,
) -> tuple[int, dict[str, Any]]:
    """The step and arrays of the newest checkpoint that is whole for all processes."""
    of_leaves = by_name(jax.tree.map(
        lambda sharding, part: jax.tree.map(lambda _: sharding, part), shardings, like,
        is_leaf=lambda x: isinstance(x, NamedSharding),
    ))
    steps = hosts.agreed("steps", lambda: reader.candidates(step))
    for candidate in steps:
        damage: list[str] = []

        def read(candidate: int = candidate, damage: list[str] = damage) -> tuple[Any, Any]:
            try:
                return reader.read_shards(candidate, like, of_leaves)
            except DamagedCheckpoint as error:
                damage.append(str(error))
                return None, None

        arrays, wanted = hosts.each_well("read", read)
        told = [one for one in hosts.everyone("damage", damage) if one]
        if not told:
            found = checksums(arrays, hosts, "checksums read")
            if all(hosts.everyone("whole", found == wanted)):
                return candidate, arrays
            told = [["a checksum differs"]]
        if hosts.first:
            where = reader.directory / str(candidate)
            said = f"checkpoint {where} is damaged ({told[0][0]})"
            warnings.warn(checks.short(said, 1000), stacklevel=2)
    raise checks.BadArgument(
        "RUN_DIR", reader.directory, f"none of its {len(steps)} checkpoints can be read whole"
    )
