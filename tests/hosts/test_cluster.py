"""Who takes part in a run, of variables and options; what JAX's last words mean."""

import itertools
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jtrust import checks
from jtrust.hosts.aborts import Place, meaning
from jtrust.hosts.cluster import Cluster, told
from jtrust.hosts.group import Hosts
from jtrust.runs.shards import combined

SLURM = {
    "SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_NTASKS": "2",
    "SLURM_PROCID": "1", "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:9", "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}


@pytest.mark.parametrize("environ, kind", [(SLURM, "Slurm"), (OPEN_MPI, "Open MPI")])
def test_clusters_are_found_by_their_variables(environ, kind):
    assert told(environ) == Cluster(kind)


@pytest.mark.parametrize("environ, number", [
    (SLURM, "SLURM_NTASKS"), (OPEN_MPI, "OMPI_COMM_WORLD_SIZE"),
])
def test_a_variable_that_is_missing_is_named(environ, number):
    for missing in set(environ) - {number}:
        with pytest.raises(checks.BadArgument) as error:
            told({k: v for k, v in environ.items() if k != missing})
        assert error.value.name == number and f"{missing} is missing" in str(error.value)
        assert "--num-processes 1" in str(error.value)


@pytest.mark.parametrize("environ", [
    {}, {"SLURM_JOB_ID": "7"}, SLURM | {"SLURM_NTASKS": "1"},  # a shell of an allocation
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, {"TPU_WORKER_HOSTNAMES": "localhost"},
    {"TPU_WORKER_HOSTNAMES": "WARNING: could not determine hostnames, please set env var"},
])
def test_one_process_where_no_others_are_told_of(environ):
    assert told(environ) is None


def test_a_machine_of_cloud_tpu_asks_for_the_others():
    assert told({}, on_tpu_vm=True) == Cluster("TPU")
    assert told({"TPU_SKIP_MDS_QUERY": "1"}, on_tpu_vm=True) is None


def test_mpirun_inside_an_allocation_of_slurm():
    allocation = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}
    assert told(allocation | OPEN_MPI) == Cluster("Open MPI")


def test_one_process_where_that_is_said():
    assert told(SLURM, count=1) is None


def test_options_say_it_all_or_what_is_missing():
    whole = {"coordinator": "10.0.0.1:80", "count": 4, "index": 3}
    assert told(SLURM, **whole) == Cluster("options", "10.0.0.1:80", 4, 3)
    names = {"coordinator": "coordinator", "count": "num_processes", "index": "process_id"}
    for size in (1, 2):
        for some in itertools.combinations(whole, size):
            with pytest.raises(checks.BadArgument) as error:
                told({}, **{key: whole[key] for key in some})
            assert error.value.name in {names[k] for k in whole} - {names[k] for k in some}


@pytest.mark.parametrize("options, name", [
    ({"coordinator": "10.0.0.1", "count": 2, "index": 0}, "coordinator"),
    ({"coordinator": ":80", "count": 2, "index": 0}, "coordinator"),
    ({"coordinator": "h:99999", "count": 2, "index": 0}, "coordinator"),
    ({"coordinator": "h:80", "count": 2, "index": 2}, "process_id"),
    ({"coordinator": "h:80", "count": 2, "index": -1}, "process_id"),
    ({"coordinator": "h:80", "count": 0, "index": 0}, "num_processes"),
])
def test_options_that_will_not_do(options, name):
    with pytest.raises(checks.BadArgument) as error:
        told({}, **options)
    assert error.value.name == name


def test_a_number_of_tasks_that_is_none():
    with pytest.raises(checks.BadArgument, match="SLURM_NTASKS"):
        told(SLURM | {"SLURM_NTASKS": "2(x2)"})


# What jaxlib 0.10.2 and 0.12.0 write before they end a process.
FATAL = (
    "F1127 12:53:45.811167    8377 client.h:80] Terminating process because the JAX distributed "
    "service detected fatal errors. This most likely indicates that another task died; see the "
    "other task logs for more details. absl::Status: {}\n*** Check failure stack trace: ***\n"
)
PLACE = dict(address="h:80", count=2, index=1, seconds=10.0, run_dir="runs/a")


@pytest.mark.parametrize("status, together, code, said", [
    ("DEADLINE_EXCEEDED: Deadline Exceeded", False, 1, "not all 2 processes came to h:80 within"),
    ("UNAVAILABLE: Task /job:jax_worker heartbeat timeout", True, 1, "jtrust resume runs/a"),
    ("UNAVAILABLE: failed to connect to all addresses; Socket closed", True, 1, "is gone"),
    ("ALREADY_EXISTS: Aborted connect attempt as there is a request from a newer incarnation",
     False, 2, "two processes of this run have the number 1"),
    ("ABORTED: 3 unexpectedly tried to connect with a different incarnation", True, 2,
     "two processes of this run have the number 3"),
    ("INVALID_ARGUMENT: Unexpected task registered with task=2", False, 2,
     "process 2 came, and process 0 was told of fewer"),
])
def test_an_abort_is_one_line(status, together, code, said):
    found, line = meaning(FATAL.format(status), Place(**PLACE, together=together))
    assert found == code and said in line and "\n" not in line


def test_an_abort_of_a_failed_check_says_what_failed():
    log = "noise\nF1127 12:53:45.8 83 x.cc:80] Check failed: a == b\n    @ 0x7f0 (unknown)\n"
    assert meaning(log, Place())[1].endswith("Check failed: a == b")


def test_an_abort_without_a_known_reason_says_the_last_line():
    assert meaning("[Gloo] Rank 0\nfree(): invalid pointer\n", Place())[1].endswith(
        "free(): invalid pointer"
    )


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_pieces_are_those_of_the_whole(a, b):
    assert combined(zlib.crc32(a), zlib.crc32(b), len(b)) == zlib.crc32(a + b)


def test_one_process_waits_for_nobody():
    hosts = Hosts()
    assert hosts.first and not hosts.several
    hosts.barrier("nobody")
    assert hosts.everyone("me", [1]) == [[1]]
    assert hosts.agreed("mine", lambda: 3) == 3
    assert isinstance(hosts.each_well("mine", lambda: np.ones(2)), np.ndarray)
    with pytest.raises(ZeroDivisionError):
        hosts.all_well("bad", lambda: 1 // 0)
    hosts.same("alone", {"a": 1})
