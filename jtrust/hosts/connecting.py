"""Bringing the processes of a run together, for the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import sys
import time
from typing import Any

import jax

from jtrust import checks
from jtrust.hosts import aborts, cluster, group

# Seconds: of silence after which a process counts as gone, and for all to leave.
_HEARTBEAT, _LEAVING = 30, 60
# The first process leaves last where all fail, so that the others have read why.
_LINGER = 2.0

_connection: list[Connection] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Several processes of one run, each with the same command; found by itself on Slurm, Open MPI,
    Cloud TPU and Kubernetes."""

    coordinator: str | None = None
    """HOST:PORT at which the first of several processes listens; where they are not found."""
    num_processes: int | None = None
    """How many processes; 1 trains alone, whatever is found."""
    process_id: int | None = None
    """Of this process, from 0 on."""
    wait: float = 50.0
    """Seconds for all of them to come."""

    def connect(self) -> Connection | None:
        """Brings the processes together; None for a run of one. Before JAX has started.

        Raises:
          BadArgument: options, variables or versions that will not do.
        """
        checks.real_number("wait", self.wait, minimum=1, maximum=86_400, example=50)
        if jax.distributed.is_initialized():
            return None  # whoever did that has the say
        found = cluster.told(
            os.environ, self.coordinator, self.num_processes, self.process_id, _on_tpu_vm()
        )
        if found is None:
            return None
        return Connection.open(found, self.wait)


@dataclasses.dataclass
class Connection:
    """This process among those of the run.

    Attributes:
      place: what is known of it where JAX ends it.
      diverted: answers that.
    """

    place: aborts.Place
    diverted: aborts.Diverted

    @classmethod
    def open(cls, found: cluster.Cluster, seconds: float) -> Connection:
        """Connects; where not all come, one line and status 1."""
        place = aborts.Place(
            found.coordinator or f"the coordinator ({found.kind})", found.count, found.index,
            seconds,
        )
        connection = cls(place, aborts.Diverted(place))
        _connection.append(connection)
        # jtrust has a SIGTERM handler of its own, and stops all processes by it (stopping.py).
        jax.config.update("jax_enable_preemption_service", False)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        given: dict[str, Any] = {} if found.kind != "options" else dict(
            coordinator_address=found.coordinator, num_processes=found.count,
            process_id=found.index, cluster_detection_method="deactivate",
        )
        try:
            # JAX gives up by ending the process, 5 s behind the time that it was given.
            jax.distributed.initialize(
                initialization_timeout=max(int(seconds) - 5, 1),
                heartbeat_timeout_seconds=_HEARTBEAT, shutdown_timeout_seconds=_LEAVING, **given,
            )
        except Exception as error:  # of each kind of cluster its own
            reason = checks.short(str(error).strip().partition("\n")[0] or type(error).__name__)
            remedy = (
                f"JAX could not bring the processes together ({reason}); --num-processes 1 trains "
                "alone"
            )
            raise checks.BadArgument("coordinator", place.address, remedy) from error
        state = _state()
        place.count, place.index, place.together = state.num_processes, state.process_id, True
        connection._compare_counts()
        return connection

    @property
    def first(self) -> bool:
        return self.place.index == 0

    @property
    def count(self) -> int:
        return self.place.count or 1

    def _compare_counts(self) -> None:
        """JAX lets two processes begin that were told of different numbers of them."""
        said = {
            "num_processes": self.place.count, "version of jtrust": _version(),
            "version of jax": jax.__version__,
            "version of Python": ".".join(platform.python_version_tuple()[:2]),
        }
        group.key_value_store().key_value_set(
            f"jtrust/hello/{self.place.index}", json.dumps(said)
        )
        others = range(1, self.place.count or 1) if self.first else (0,)
        for process in others:
            text = group.wait_for(f"jtrust/hello/{process}", self.place.seconds)
            if text is None:
                raise checks.TrainingFailed(aborts.not_all_came(self.place))
            other = json.loads(text)
            for name, value in said.items():
                if other.get(name) != value:
                    raise checks.BadArgument(
                        name, value,
                        f"process {process} has {other.get(name)}, process {self.place.index} must "
                        "have the same",
                    )

    def leave(self, status: int, in_order: bool) -> None:
        """Leaves the others, and does not return where that could hang.

        Args:
          status: of this process.
          in_order: whether all processes come to this together.
        """
        if in_order:
            # All is done and written; one that dies meanwhile changes nothing of it.
            with contextlib.suppress(RuntimeError):
                jax.distributed.shutdown()
            return
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        if self.first:
            time.sleep(_LINGER)
        os._exit(status)  # what JAX does at an ordinary exit would wait for the others


def current() -> Connection | None:
    """That of this process, where the command line made one."""
    return _connection[0] if _connection else None


def train_into(run_dir: Any) -> None:
    """Says where a run is kept, for the line that tells how it goes on."""
    if (connection := current()) is not None:
        connection.place.run_dir = str(run_dir)


def _on_tpu_vm() -> bool:
    """Whether JAX has found a TPU's chips on this machine, by files; it has not started by then."""
    from jax._src import cloud_tpu_init

    return cloud_tpu_init.running_in_cloud_tpu_vm


def _state() -> Any:
    """Of JAX's distributed runtime; what it knows before JAX's devices are there."""
    from jax._src import distributed

    return distributed.global_state


def _version() -> str:
    from jtrust.version import __version__

    return __version__
