"""Orbax checkpoints of the whole training state, one directory per step.

Arrays are stored under the names of their places in the state, so a checkpoint opens on any number
and kind of devices and processes, and a reader can take the policy alone. Of several processes each
writes the rows that lie on its devices. Orbax writes into a temporary directory and renames it when
all is on disk. A checksum of every array lies beside them, so damage is seen whatever Orbax makes
of it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import os
from pathlib import Path
from typing import Any

import jax

from jtrust.hosts.group import Hosts
from jtrust.runs.arrays import checksum, from_arrays, on_devices, to_arrays
from jtrust.runs.checkpoint_reader import CheckpointReader, DamagedCheckpoint
from jtrust.runs.shards import checksums

__all__ = ["CheckpointReader", "CheckpointWriter", "DamagedCheckpoint", "from_arrays", "to_arrays"]

_POLICY_FIELDS = ("policy", "observation_statistics")
ALONE = Hosts()


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time.

    Args:
      directory: of the run.
      keep: how many of the newest to keep; 0 keeps all.
      hosts: the processes whose devices hold the state; each writes what is on its own.
      pool: writes, one behind the other; by default a thread of its own.
    """

    def __init__(
        self, directory: Path, keep: int = 0, hosts: Hosts = ALONE,
        pool: concurrent.futures.Executor | None = None,
    ):
        self.directory = Path(directory).absolute()
        self._keep, self._hosts = keep or None, hosts
        # Orbax would make a directory anew that somebody has moved away.
        self._identity = _identity(self.directory)
        self._shared = pool is not None
        self._pool = pool or concurrent.futures.ThreadPoolExecutor(
            1, thread_name_prefix="checkpoint"
        )
        self._pending: concurrent.futures.Future | None = None

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`, which nobody may donate; returns at once unless the checkpoint
        before is still under way.

        Raises:
          OSError: the checkpoint before this one could not be written.
        """
        self.wait()
        if self._hosts.several:
            state = on_devices(state)  # by programs, which this thread alone may launch
        self._pending = self._pool.submit(self.write, step, state)

    def wait(self) -> None:
        """Returns when the last checkpoint is on disk.

        Raises:
          OSError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Ends what is under way; call `wait` first to learn of a failure."""
        if not self._shared:
            self._pool.shutdown()
        elif self._pending is not None:
            concurrent.futures.wait([self._pending])

    @functools.cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, enable_async_checkpointing=False, create=False,
                multiprocessing_options=self._processes(),
            ),
        )

    def _processes(self) -> Any:
        """Who takes part; named, since Orbax's threads else wait for each other by programs on the
        devices, between which iterations may come."""
        import orbax.checkpoint as ocp

        first, active = 0, set(range(self._hosts.count))
        if not self._hosts.several:  # a run of its own, though there may be other processes
            first, active = jax.process_index(), {jax.process_index()}
        return ocp.options.MultiprocessingOptions(
            primary_host=first, active_processes=active if jax.process_count() > 1 else None,
            barrier_sync_key_prefix=f"jtrust-{first}",
        )

    def write(self, step: int, state: Any) -> None:
        """Writes `state` at once; `save` does so in the background.

        Raises:
          OSError: it could not be written.
        """
        import orbax.checkpoint as ocp

        several = self._hosts.several
        arrays: dict[str, Any] = on_devices(state) if several else dict(to_arrays(state))
        items: dict[str, dict[str, Any]] = {"policy": {}, "training": {}}
        for name, value in arrays.items():
            own = name.split(".")[0] in _POLICY_FIELDS
            items["policy" if own else "training"][name] = value
        try:
            of_arrays = (
                checksums(arrays, self._hosts, "checksums") if several
                else {name: checksum(value) for name, value in arrays.items()}
            )
            claims = {
                item: {n: [str(v.dtype), list(v.shape), of_arrays[n]] for n, v in values.items()}
                for item, values in items.items()
            }
            if _identity(self.directory) != self._identity:
                raise FileNotFoundError("the run's directory is gone")
            if self._hosts.first:
                self._set_aside(self.directory / str(step))
            self._hosts.barrier("set aside")  # before Orbax looks at what there is
            self._manager.save(step, args=ocp.args.Composite(
                **{item: ocp.args.StandardSave(values) for item, values in items.items()},
                checksums=ocp.args.JsonSave(claims),
            ))
        except Exception as error:  # Orbax and tensorstore raise nearly anything.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(
                f"checkpoint {self.directory / str(step)} could not be written: {reason[0][:300]}"
            ) from error

    @staticmethod
    def _set_aside(final: Path) -> None:
        """Renames a damaged checkpoint whose step is reached again; nothing is deleted."""
        if os.path.lexists(final):
            names = (final.with_name(f"{final.name}.damaged-{n}") for n in itertools.count(1))
            final.rename(next(name for name in names if not os.path.lexists(name)))
