"""Processes of one run that agree, by JAX's key-value store; no device takes part.

What processes say to each other on the host's side must not wait on devices, whose work each
process dispatches ahead in its own time: a collective of a helper thread could meet one of the
iteration on another host, and both would hang.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, PartitionSpec

from jtrust import checks
from jtrust.training.mesh import check_processes

T = TypeVar("T")

# A wait is cut into slices: Python's signal handlers run between them.
_SLICE_MS = 1000
# Of one process for another that is alive: JAX's heartbeats tell of the dead long before.
_PATIENCE = 3600.0

# How often each name was used in this process; names are not used twice.
_USED: collections.Counter[str] = collections.Counter()


class ToldElsewhere(Exception):
    """Another process of the run has failed, and says why.

    Attributes:
      status: the exit status that it ends with.
    """

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes that a run's devices belong to; the methods of one alone do nothing.

    All of them call the same methods in the same order, for each name.

    Attributes:
      index: of this process.
      count: how many.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def of(cls, devices: Mesh | Sequence[jax.Device] | int | None) -> Hosts:
        """Those of a mesh, of devices, or of all devices that JAX shows.

        Raises:
          BadArgument: devices that leave some processes out, or processes that JAX's distributed
            runtime has not brought together.
        """
        if not jax.distributed.is_initialized():
            if jax.process_count() > 1:
                raise checks.BadArgument(
                    "jax.process_count()", jax.process_count(),
                    "call jax.distributed.initialize() first",
                )
            return cls()
        if isinstance(devices, Mesh):
            devices = list(devices.devices.flat)
        if isinstance(devices, Sequence) and all(hasattr(d, "process_index") for d in devices):
            check_processes(devices)
            if {d.process_index for d in devices} == {jax.process_index()}:
                return cls()  # a run of this process's own
        return cls(jax.process_index(), jax.process_count())

    @property
    def first(self) -> bool:
        """Whether this process makes directories, writes rows and shows progress."""
        return self.index == 0

    @property
    def several(self) -> bool:
        return self.count > 1

    def everyone(self, name: str, value: Any) -> list[Any]:
        """What each process gives, JSON's values, by its index; returns when all have.

        Raises:
          TrainingFailed: one has not come within an hour.
        """
        if not self.several:
            return [value]
        store, prefix = key_value_store(), self.new_place(name)
        store.key_value_set(f"{prefix}/{self.index}", json.dumps(value))
        found = [
            value if i == self.index else json.loads(self._read(f"{prefix}/{i}", name, i))
            for i in range(self.count)
        ]
        # All have read what was given the time before last, or they would not have come here.
        used = _USED[name]
        if used > 2:
            store.key_value_delete(f"jtrust/{name}/{used - 2}/{self.index}")
        return found

    def barrier(self, name: str) -> None:
        """Returns when every process has called it."""
        self.everyone(name, None)

    def meet(self, mesh: Mesh) -> None:
        """Has the devices of a mesh compute something small together.

        They have half a minute for each other when they first do (gloo, jax 0.10), and programs
        that take long to compile are not compiled at the same time everywhere.
        """
        if not self.several:
            return
        self.barrier("meet")
        axes = mesh.axis_names
        total = jax.jit(jax.shard_map(
            lambda x: jax.lax.psum(x, axes), mesh=mesh, in_specs=PartitionSpec(),
            out_specs=PartitionSpec(), check_vma=False,
        ))
        jax.block_until_ready(total(1.0))

    def agreed(self, name: str, function: Callable[[], T]) -> T:
        """What `function`, called by the first process alone, returns there (JSON's values).

        Raises:
          ToldElsewhere: it failed there; there, what it raised.
        """
        return self.all_well(name, function if self.first else None)[0]

    def all_well(self, name: str, function: Callable[[], Any] | None) -> list[Any]:
        """What `function` returns in each process.

        Raises:
          ToldElsewhere: it failed in another process; here, what it raised.
        """
        result, failed = None, None
        try:
            result = None if function is None else function()
        except Exception as error:
            if not self.several:
                raise
            failed = error
        said = self.everyone(name, [result, None if failed is None else _described(failed)])
        if failed is not None:
            raise failed
        for i, (_, problem) in enumerate(said):
            if problem is not None:
                raise ToldElsewhere(f"process {i}: {problem[0]}", problem[1])
        return [value for value, _ in said]

    def each_well(self, name: str, function: Callable[[], T]) -> T:
        """The same, with this process's result, which may be anything."""
        kept: list[T] = []
        self.all_well(name, lambda: kept.append(function()))
        return kept[0]

    def same(self, name: str, values: dict[str, Any]) -> None:
        """Has all processes give the same.

        Raises:
          BadArgument: in a process that differs from the first.
          ToldElsewhere: in the others.
        """
        first = self.everyone(name, values)[0]

        def compare() -> None:
            mine, other = (_flat(json.loads(json.dumps(x))) for x in (values, first))
            for key in {**mine, **other}:
                if mine.get(key) != other.get(key):
                    raise checks.BadArgument(
                        key, mine.get(key),
                        f"process 0 of {self.count} has {checks.short(str(other.get(key)))}, "
                        f"process {self.index} must have the same",
                    )

        self.all_well(f"{name}-compared", compare)

    def new_place(self, name: str) -> str:
        """Where the next use of a name has its keys, the same in every process."""
        _USED[name] += 1
        return f"jtrust/{name}/{_USED[name]}"

    def _read(self, key: str, name: str, process: int) -> str:
        found = wait_for(key, _PATIENCE)
        if found is None:
            raise checks.TrainingFailed(
                f"process {process} of {self.count} has not come to {name} within "
                f"{_PATIENCE / 60:.0f} minutes"
            )
        return found


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    """With what dictionaries among the values hold in their place."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= value if isinstance(value, dict) and value else {key: value}
    return flat


def key_value_store() -> Any:
    """That of JAX's distributed runtime, which has no public name for it (jax 0.10 to 0.12)."""
    from jax._src import distributed

    return distributed.global_state.client


def wait_for(key: str, seconds: float) -> str | None:
    """The value of a key, once somebody has set it; None where nobody has within `seconds`."""
    store, end = key_value_store(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            return store.blocking_key_value_get(key, max(min(_SLICE_MS, int(left * 1000)), 1))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
    return None


def _described(error: Exception) -> tuple[str, int]:
    """What an exception says, and the status that the command line ends with for it."""
    if isinstance(error, ToldElsewhere):
        return str(error), error.status
    if isinstance(error, checks.BadArgument):
        return error.as_option(), 2
    return checks.short(f"{type(error).__name__}: {error}", 1000), 1
