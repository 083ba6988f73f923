"""Who is to take part in a run, as options or the environment's variables say."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping

from jtrust import checks

# What each kind of cluster sets: how many processes there are, and what JAX reads beside.
_SLURM = (
    "SLURM_NTASKS", ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID"),
)
_OPEN_MPI = (
    "OMPI_COMM_WORLD_SIZE",
    ("OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
)
_OTHERWISE = "give --coordinator, --num-processes and --process-id, or --num-processes 1 for one"
_MOST = 100_000


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Processes that JAX's distributed runtime is to bring together.

    Attributes:
      kind: "options", or what its variables tell of: "Slurm", "Open MPI", "TPU" or "Kubernetes".
      coordinator: HOST:PORT at which the first process listens; None where JAX finds it.
      count: how many processes; None where JAX finds that.
      index: of this process; the same.
    """

    kind: str
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def told(
    environ: Mapping[str, str], coordinator: str | None = None, count: int | None = None,
    index: int | None = None, on_tpu_vm: bool = False,
) -> Cluster | None:
    """The cluster that options or variables tell of; None for a run of one process.

    Args:
      environ: the environment's variables.
      coordinator, count, index: the options `--coordinator`, `--num-processes`, `--process-id`.
      on_tpu_vm: whether this is a machine of Cloud TPU, which tells JAX of the others.

    Raises:
      BadArgument: what is missing, or will not do.
    """
    given = {"coordinator": coordinator, "num_processes": count, "process_id": index}
    if count is not None:
        count = checks.whole_number("num_processes", count, maximum=_MOST, example=2)
    if count == 1:
        return None
    if any(value is not None for value in given.values()):
        return _by_options(given)
    # mpirun may run inside an allocation of Slurm.
    for kind, (number, others) in (("Open MPI", _OPEN_MPI), ("Slurm", _SLURM)):
        if number in environ and _count(number, environ[number]) > 1:
            _check_all_set(environ, number, others)
            return Cluster(kind)
    hostnames = environ.get("TPU_WORKER_HOSTNAMES", "")
    # Away from TPUs, libtpu leaves a sentence there for the processes that come after.
    workers = [] if " " in hostnames else [w for w in hostnames.split(",") if w]
    if len(workers) > 1 and importlib.util.find_spec("libtpu") is not None:
        _check_all_set(environ, "TPU_WORKER_HOSTNAMES", ("TPU_WORKER_ID",))
        return Cluster("TPU")
    if on_tpu_vm and "TPU_SKIP_MDS_QUERY" not in environ:
        return Cluster("TPU")
    if "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ:
        if importlib.util.find_spec("kubernetes") is None:
            raise checks.BadArgument(
                "JOB_COMPLETION_INDEX", environ["JOB_COMPLETION_INDEX"],
                f"to find the others of a Kubernetes job needs `pip install kubernetes`; or "
                f"{_OTHERWISE}",
            )
        return Cluster("Kubernetes")
    return None


def _by_options(given: Mapping[str, object]) -> Cluster:
    coordinator, count, index = given.values()
    for name, value in given.items():
        if value is None:
            others = " and ".join(
                f"--{k.replace('_', '-')}" for k, v in given.items() if v is not None
            )
            raise checks.BadArgument(
                name, "nothing", f"must be given beside {others}; {_OTHERWISE}"
            )
    assert isinstance(coordinator, str) and isinstance(count, int)
    host, colon, port = coordinator.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise checks.BadArgument(
            "coordinator", coordinator, "must be HOST:PORT, such as 10.0.0.1:8476"
        )
    index = checks.whole_number("process_id", index, minimum=0, maximum=count - 1, example=0)
    return Cluster("options", coordinator, count, index)


def _count(name: str, text: str) -> int:
    if not text.isdecimal():
        raise checks.BadArgument(name, text, f"must be how many processes there are; {_OTHERWISE}")
    return int(text)


def _check_all_set(environ: Mapping[str, str], number: str, others: tuple[str, ...]) -> None:
    missing = [name for name in others if not environ.get(name)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        start = {
            "SLURM_NTASKS": "start by srun, ",
            "OMPI_COMM_WORLD_SIZE": "Open MPI from 5 on does not set all of them; ",
        }
        raise checks.BadArgument(
            number, environ[number],
            f"{' and '.join(missing)} {verb} missing beside it; {start.get(number, '')}"
            f"{_OTHERWISE}",
        )
