"""Orbax checkpoints of the whole training state, one directory per step.

Arrays are stored as plain host arrays under the names of their places in the state, so a
checkpoint opens on any number and kind of devices and a reader can take the policy alone. Orbax
writes into a temporary directory and renames it when all is on disk. A checksum of every array
lies beside them, so damage is seen whatever Orbax makes of it.
"""

from __future__ import annotations

import concurrent.futures
import functools
import itertools
import json
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks

_POLICY_FIELDS = ("policy", "observation_moments")
_CHECKSUMS = Path("checksums") / "metadata"


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read whole; the message says why."""


def to_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a pytree by name, on the host; empty ones, which hold nothing, left out."""
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if _is_key(leaf):
            leaf = jax.random.key_data(leaf)
        if leaf.size:
            arrays[_name(path)] = np.asarray(jax.device_get(leaf))
    return arrays


def from_arrays(arrays: dict[str, np.ndarray], like: Any, where: str) -> Any:
    """The pytree that `to_arrays` took apart.

    Args:
      arrays: by name.
      like: pytree of shapes and types.
      where: what to call the source in errors.

    Raises:
      BadArgument: a leaf that is missing, left over, or of another shape or type.
    """
    left = dict(arrays)

    def take(path, leaf):
        name = _name(path)
        plain = jax.eval_shape(jax.random.key_data, leaf) if _is_key(leaf) else leaf
        if not plain.size:
            return np.zeros(plain.shape, plain.dtype)
        if name not in left:
            raise checks.BadArgument("RUN_DIR", where, f"has no {name}, {plain.shape}")
        value = left.pop(name)
        if value.shape != plain.shape or value.dtype != plain.dtype:
            raise checks.BadArgument(
                "RUN_DIR", where,
                f"{name} is {value.dtype}{list(value.shape)}, but the configuration asks for "
                f"{plain.dtype}{list(plain.shape)}",
            )
        return jax.random.wrap_key_data(jnp.asarray(value)) if _is_key(leaf) else value

    tree = jax.tree_util.tree_map_with_path(take, like)
    if left:
        raise checks.BadArgument(
            "RUN_DIR", where, f"has {', '.join(sorted(left)[:3])}, which the configuration has not"
        )
    return tree


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _checksum(array: np.ndarray) -> str:
    header = f"{array.dtype}{array.shape}".encode()
    return f"{zlib.crc32(np.ascontiguousarray(array).tobytes(), zlib.crc32(header)):08x}"


def _identity(directory: Path) -> tuple[int, int] | None:
    try:
        found = directory.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class CheckpointReader:
    """Reads the checkpoints of a run."""

    def __init__(self, directory: Path):
        self.directory = Path(directory).absolute()

    def steps(self) -> list[int]:
        """Steps that a finished checkpoint's name claims, oldest first."""
        return sorted(
            int(path.name) for path in self.directory.iterdir()
            if path.name.isdecimal() and path.is_dir()
        )

    def read(self, step: int, policy_only: bool = False) -> dict[str, np.ndarray]:
        """The arrays of one checkpoint.

        Raises:
          DamagedCheckpoint: it cannot be read, or a checksum differs.
        """
        import orbax.checkpoint as ocp

        path = self.directory / str(step)
        try:
            checksums = json.loads((path / _CHECKSUMS).read_text())
        except (OSError, ValueError) as error:
            raise DamagedCheckpoint(f"{_CHECKSUMS}: {error}") from error
        arrays: dict[str, np.ndarray] = {}
        for item in ("policy",) if policy_only else ("policy", "training"):
            try:
                with ocp.StandardCheckpointer() as checkpointer:
                    target = {
                        name: np.zeros(shape, dtype)
                        for name, (dtype, shape, _) in checksums[item].items()
                    }
                    arrays.update(checkpointer.restore(path / item, target))
                for name, (_, _, checksum) in checksums[item].items():
                    if _checksum(arrays[name]) != checksum:
                        raise DamagedCheckpoint(f"the checksum of {name} differs")
            except DamagedCheckpoint:
                raise
            except Exception as error:  # Orbax and tensorstore raise nearly anything on damage.
                reason = str(error).strip().splitlines() or [""]
                raise DamagedCheckpoint(f"{type(error).__name__}: {reason[0][:200]}") from error
        return arrays

    def newest_whole(
        self, step: int | None = None, policy_only: bool = False
    ) -> tuple[int, dict[str, np.ndarray]]:
        """The newest checkpoint that can be read, with a warning for each newer one that cannot.

        Args:
          step: this one and no other.

        Raises:
          BadArgument: there is none.
        """
        steps = self.steps()
        if not steps:
            raise checks.BadArgument(
                "RUN_DIR", self.directory,
                "holds no checkpoint; give the directory of a run that wrote one",
            )
        if step is not None:
            if step not in steps:
                shown = ", ".join(map(str, steps[-5:]))
                raise checks.BadArgument("step", step, f"no such checkpoint; there are {shown}")
            steps = [step]
        for candidate in reversed(steps):
            try:
                return candidate, self.read(candidate, policy_only)
            except DamagedCheckpoint as damage:
                warnings.warn(
                    f"checkpoint {self.directory / str(candidate)} is damaged ({damage})",
                    stacklevel=2,
                )
        raise checks.BadArgument(
            "RUN_DIR", self.directory, f"none of its {len(steps)} checkpoints can be read whole"
        )


class CheckpointWriter:
    """Writes checkpoints in the background, one at a time.

    Args:
      directory: of the run.
      keep: how many of the newest to keep; 0 keeps all.
    """

    def __init__(self, directory: Path, keep: int = 0):
        self.directory = Path(directory).absolute()
        self._keep = keep or None
        # Orbax would make a directory anew that somebody has moved away.
        self._identity = _identity(self.directory)
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: concurrent.futures.Future | None = None
        self._copy = jax.jit(lambda state: jax.tree.map(jnp.copy, state))

    def copy(self, state: Any) -> Any:
        """A copy on the device, made as soon as it gets to it: the state may be donated."""
        return self._copy(state)

    def save(self, step: int, state: Any) -> None:
        """Starts to write `state`, which nobody may donate; returns at once unless the checkpoint
        before is still under way.

        Raises:
          OSError: the checkpoint before this one could not be written.
        """
        self.wait()
        self._pending = self._pool.submit(self._write, step, state)

    def wait(self) -> None:
        """Returns when the last checkpoint is on disk.

        Raises:
          OSError: it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Ends the writing thread; call `wait` first to learn of a failure."""
        self._pool.shutdown()

    @functools.cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp

        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=self._keep, enable_async_checkpointing=False, create=False
            ),
        )

    def _write(self, step: int, state: Any) -> None:
        import orbax.checkpoint as ocp

        arrays = to_arrays(state)
        items: dict[str, dict[str, np.ndarray]] = {"policy": {}, "training": {}}
        for name, value in arrays.items():
            own = name.split(".")[0] in _POLICY_FIELDS
            items["policy" if own else "training"][name] = value
        checksums = {
            item: {n: [str(v.dtype), list(v.shape), _checksum(v)] for n, v in values.items()}
            for item, values in items.items()
        }
        try:
            if _identity(self.directory) != self._identity:
                raise FileNotFoundError("the run's directory is gone")
            self._set_aside(self.directory / str(step))
            self._manager.save(step, args=ocp.args.Composite(
                **{item: ocp.args.StandardSave(values) for item, values in items.items()},
                checksums=ocp.args.JsonSave(checksums),
            ))
        except Exception as error:  # Orbax and tensorstore raise nearly anything.
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise OSError(
                f"checkpoint {self.directory / str(step)} could not be written: {reason[0][:300]}"
            ) from error

    @staticmethod
    def _set_aside(final: Path) -> None:
        """Renames a damaged checkpoint whose step is reached again; nothing is deleted."""
        if final.exists():
            names = (final.with_name(f"{final.name}.damaged-{n}") for n in itertools.count(1))
            final.rename(next(name for name in names if not name.exists()))
