"""Reading checkpoints: while another process writes some and deletes others, and from anywhere.

What a checkpoint holds is compared with what the run's configuration asks for, name by name, shape
and type, before anything is read or made room for. Nothing in it is executed, and no link followed.
"""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jtrust import checks
from jtrust.paths import read_plain
from jtrust.runs.arrays import check_arrays, checksum
from jtrust.runs.reading import read_json
from jtrust.runs.upgrades import renamed, with_added

_CHECKSUMS = Path("checksums") / "metadata"
_MOST_BYTES = 2**26  # of checksums
_MOST_FILES = 100_000
_LOOKS = 100

# By item of a checkpoint, by name of array: what it should be, and its checksum.
Claims = dict[str, dict[str, tuple[jax.ShapeDtypeStruct, str]]]


class DamagedCheckpoint(Exception):
    """A checkpoint that cannot be read whole; the message says why."""


class PolicyAlone(DamagedCheckpoint):
    """A checkpoint without a training state, as those that are given away."""


class CheckpointReader:
    """Reads the checkpoints of a run."""

    def __init__(self, directory: str | os.PathLike):
        self.directory = Path(directory).absolute()

    def steps(self) -> list[int]:
        """Steps that a finished checkpoint's name claims, oldest first."""
        with os.scandir(self.directory) as entries:
            return sorted(
                int(entry.name) for entry in entries
                if re.fullmatch("0|[1-9][0-9]{0,17}", entry.name)
                and entry.is_dir(follow_symlinks=False)
            )

    def check_training_state(self) -> None:
        """Raises `BadArgument` where no checkpoint holds more than a policy; a quick look."""
        steps = self.steps()
        if steps and not any((self.directory / str(s) / "training").is_dir() for s in steps) and (
            any((self.directory / str(s) / "policy").is_dir() for s in steps)
        ):
            raise self._policy_alone()

    def _policy_alone(self) -> checks.BadArgument:
        return checks.BadArgument(
            "RUN_DIR", self.directory,
            "holds a policy alone, and no training state to go on from; `jtrust evaluate` and "
            "jtrust.load_policy take it",
        )

    def read(
        self, step: int, policy_only: bool = False, like: Any = None
    ) -> dict[str, np.ndarray]:
        """The arrays of one checkpoint, by the names that their places have now.

        Args:
          step: which.
          policy_only: the policy's alone.
          like: pytree of the shapes and types that are asked for; by default any will do.

        Raises:
          DamagedCheckpoint: it cannot be read, or a checksum differs.
          BadArgument: it is whole, and is not what `like` asks for.
        """
        path = self.directory / str(step)
        claims = self._checked_claims(path, policy_only, like)
        arrays: dict[str, np.ndarray] = {}
        for item, of_item in claims.items():
            found = _restore(path / item, {
                name: np.zeros(spec.shape, spec.dtype) for name, (spec, _) in of_item.items()
            })
            for name, (_, check) in of_item.items():
                if checksum(found[name]) != check:
                    raise DamagedCheckpoint(f"the checksum of {name} differs")
            arrays |= found
        return renamed(arrays)

    def read_shards(
        self, step: int, like: Any, shardings: Mapping[str, jax.sharding.Sharding]
    ) -> tuple[dict[str, jax.Array], dict[str, str]]:
        """A whole training state on the devices of several processes, each of which reads its own
        rows alone, and the checksums that there should be.

        Args:
          step, like: as for `read`.
          shardings: by the names that places have now.

        Raises:
          DamagedCheckpoint, BadArgument: as `read`; checksums are the caller's to compare.
        """
        path = self.directory / str(step)
        arrays: dict[str, jax.Array] = {}
        wanted: dict[str, str] = {}
        for item, claims in self._checked_claims(path, False, like).items():
            new = {name: next(iter(renamed({name: None}))) for name in claims}
            arrays |= _restore(path / item, {
                name: jax.ShapeDtypeStruct(spec.shape, spec.dtype, sharding=shardings[new[name]])
                for name, (spec, _) in claims.items()
            })
            wanted |= {new[name]: check for name, (_, check) in claims.items()}
        return renamed(arrays), wanted

    def _checked_claims(self, path: Path, policy_only: bool, like: Any) -> Claims:
        """What a checkpoint holds, compared with what is asked for."""
        items = ("policy",) if policy_only else ("policy", "training")
        for _ in _files(path):
            pass  # a link among them raises
        claims = _claims(path, items)
        found = renamed(
            {name: spec for item in items for name, (spec, _) in claims[item].items()}
        )
        for item in items:
            _check_stored(path / item, claims[item])
        if like is not None:
            check_arrays(found if policy_only else with_added(found), like, str(path))
        return claims

    def newest_whole(
        self, step: int | None = None, policy_only: bool = False, like: Any = None
    ) -> tuple[int, dict[str, np.ndarray]]:
        """The newest checkpoint that can be read, with a warning for each newer one that cannot.

        A run that goes on writes new checkpoints and may delete old ones: where one fails and
        something has changed meanwhile, it is looked again.

        Args:
          step: this one and no other.
          policy_only, like: as for `read`.

        Raises:
          BadArgument: there is none, or it is not what `like` asks for.
        """
        for look in range(_LOOKS):
            before, damage = self._state(step), {}
            for candidate in self.candidates(step):
                try:
                    arrays = self.read(candidate, policy_only, like)
                except DamagedCheckpoint as error:
                    damage[candidate] = error
                    if self._state(step) != before:
                        break
                    continue
                self._warn(damage)
                return candidate, arrays
            else:
                break
            time.sleep(0.01 * look)
        if any(isinstance(error, PolicyAlone) for error in damage.values()):
            raise self._policy_alone()
        self._warn(damage)
        raise checks.BadArgument(
            "RUN_DIR", self.directory, f"none of its {len(damage)} checkpoints can be read whole"
        )

    def candidates(self, step: int | None) -> list[int]:
        """Steps to try, the newest first."""
        steps = self.steps()
        if not steps:
            raise checks.BadArgument(
                "RUN_DIR", self.directory,
                "holds no checkpoint; give the directory of a run that wrote one",
            )
        if step is None:
            return steps[::-1]
        if step not in steps:
            shown = ", ".join(map(str, steps[-5:]))
            raise checks.BadArgument("step", step, f"no such checkpoint; there are {shown}")
        return [step]

    def _state(self, step: int | None) -> tuple:
        """What changes where checkpoints come and go."""
        steps = self.steps()
        if step is None:
            return tuple(steps)
        try:
            return tuple(steps), tuple(sorted(_files(self.directory / str(step))))
        except DamagedCheckpoint:
            return tuple(steps), None

    def _warn(self, damage: Mapping[int, DamagedCheckpoint]) -> None:
        for step, error in damage.items():
            warnings.warn(
                checks.short(
                    f"checkpoint {self.directory / str(step)} is damaged ({error})", 1000
                ), stacklevel=3,
            )


def _files(directory: Path) -> Iterator[str]:
    """Every file below a checkpoint's directory.

    Raises:
      DamagedCheckpoint: for a link or a device among them, or more files than Orbax writes.
    """
    waiting, count = [str(directory)], 0
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif not entry.is_file(follow_symlinks=False):
                        raise DamagedCheckpoint(f"{entry.name} is a link, or no plain file")
                    else:
                        yield entry.path
        except OSError as error:
            raise DamagedCheckpoint(str(error)) from error
        if count > _MOST_FILES:
            raise DamagedCheckpoint("it has too many files")


def _claims(path: Path, items: tuple[str, ...]) -> Claims:
    """What a checkpoint's checksums say that it holds.

    Raises:
      DamagedCheckpoint: they are none.
    """
    try:
        found = read_json(read_plain(path / _CHECKSUMS, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise DamagedCheckpoint(f"{_CHECKSUMS}: {error}") from error
    whole = isinstance(found, dict) and isinstance(found.get("policy"), dict)
    if whole and "training" in items and not (
        (path / "training").is_dir() and "training" in found
    ):
        raise PolicyAlone("it holds a policy alone")
    try:
        return {
            item: {name: _claim(*claim) for name, claim in found[item].items()} for item in items
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedCheckpoint(f"{_CHECKSUMS}: {type(error).__name__}: {error}") from error


def _claim(dtype: Any, shape: Any, check: Any) -> tuple[jax.ShapeDtypeStruct, str]:
    if not isinstance(dtype, str) or not re.fullmatch("[a-z0-9_]{1,20}", dtype):
        raise ValueError(f"there is no type {dtype!r}")
    found = np.dtype(dtype)
    if not (jnp.issubdtype(found, np.number) or found == np.bool_):
        raise ValueError(f"an array is not of type {dtype!r}")
    if not isinstance(shape, list) or len(shape) > 32 or not all(
        type(n) is int and 0 <= n < 2**62 for n in shape
    ):
        raise ValueError(f"there is no shape {shape!r}")
    return jax.ShapeDtypeStruct(tuple(shape), found), str(check)


def _check_stored(
    path: Path, claims: Mapping[str, tuple[jax.ShapeDtypeStruct, str]]
) -> None:
    """Raises `DamagedCheckpoint` where arrays on disk are not as their checksums say.

    Reads their descriptions alone. A chunk is what is made room for at once, so none may be larger
    than its array.
    """
    import orbax.checkpoint as ocp

    try:
        stored = dict(ocp.StandardCheckpointHandler().metadata(path).tree)
        for name, (spec, _) in claims.items():
            found = stored.pop(name)
            chunk = found.storage.chunk_shape if found.storage is not None else ()
            if tuple(found.shape) != spec.shape or np.dtype(found.dtype) != spec.dtype:
                raise DamagedCheckpoint(
                    f"{name} is {found.dtype}{list(found.shape)}, its checksum's "
                    f"{spec.dtype}{list(spec.shape)}"
                )
            if math.prod(chunk or ()) > max(math.prod(spec.shape), 1):
                raise DamagedCheckpoint(f"a chunk of {name} is larger than the array")
        if stored:
            raise DamagedCheckpoint(f"{next(iter(stored))} has no checksum")
    except DamagedCheckpoint:
        raise
    except Exception as error:  # Orbax and tensorstore raise nearly anything on damage.
        raise _damaged(error) from error


def _restore(path: Path, target: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays like `target`'s, on the host or on devices."""
    import orbax.checkpoint as ocp

    # Each process reads for itself, and waits for no other.
    index = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"read-{index}"
    ) if jax.process_count() > 1 else ocp.options.MultiprocessingOptions()
    try:
        with ocp.Checkpointer(
            ocp.StandardCheckpointHandler(multiprocessing_options=alone),
            multiprocessing_options=alone,
        ) as checkpointer:
            return checkpointer.restore(path, args=ocp.args.StandardRestore(dict(target)))
    except Exception as error:
        raise _damaged(error) from error


def _damaged(error: Exception) -> DamagedCheckpoint:
    reason = str(error).strip().splitlines() or [""]
    return DamagedCheckpoint(f"{type(error).__name__}: {reason[0][:200]}")
