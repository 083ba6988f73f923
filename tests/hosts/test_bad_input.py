"""What will not do is answered by one line, soon, on the host that can say it."""

import pytest

from scripts.launch.local import free_port
from tests.hosts.processes import TRAIN, end_all, started

pytestmark = pytest.mark.slow


def run(tmp_path, *differences, seconds=60, folders=()):
    """Two processes whose commands differ so: [(status, what is said on standard error)]."""
    address = f"127.0.0.1:{free_port()}"
    commands = []
    for i, different in enumerate(differences):
        options = {
            "--coordinator": address, "--num-processes": "2", "--process-id": str(i),
            "--steps": "512", "--run-dir": str(tmp_path / "run"), "--wait": "10",
        } | different
        commands.append((
            "-m", "jtrust", *TRAIN, *(word for pair in options.items() for word in pair)
        ))
    with started(*commands, folders=folders) as processes:
        return [(status, err) for status, _, err in end_all(processes, seconds)]


def assert_one_line(err, *parts):
    lines = [line for line in err.splitlines() if not line.startswith("steps ")]
    assert len(lines) == 1 and lines[0].startswith("jtrust: "), err
    for part in parts:
        assert part in lines[0], err


def test_two_processes_of_one_number(tmp_path):
    ended = run(tmp_path, {}, {"--process-id": "1"}, {"--process-id": "1"})
    assert {status for status, _ in ended} <= {1, 2} and 2 in [status for status, _ in ended]
    assert any("two processes of this run have the number 1" in err for _, err in ended), ended
    for _, err in ended:
        assert_one_line(err)


def test_numbers_of_processes_that_do_not_match(tmp_path):
    (first, said), (second, told) = run(tmp_path, {}, {"--num-processes": "3"})
    assert second == 2 and first in (1, 2)
    assert_one_line(told, "--num-processes 3", "process 0 has 2")
    assert_one_line(said)


def test_one_that_does_not_come(tmp_path):
    ((status, err),) = run(tmp_path, {})
    assert status == 1
    assert_one_line(err, "not all 2 processes came to 127.0.0.1", "within 10 s")


def test_options_that_differ(tmp_path):
    (first, _), (second, told) = run(tmp_path, {}, {"--max-kl": "0.02"})
    assert first == second == 2
    assert_one_line(
        told, "--max-kl 0.02: process 0 of 2 has 0.01, process 1 must have the same"
    )


@pytest.mark.nightly
def test_the_first_decides_where_a_run_is_kept(tmp_path):
    folders = (tmp_path / "a", tmp_path / "b")
    for folder in folders:
        folder.mkdir()
    (first, said), (second, told) = run(tmp_path, *2 * ({"--run-dir": "run"},), folders=folders)
    assert first == second == 0, (said, told)
    assert (tmp_path / "a" / "run" / "config.json").exists() and not any(folders[1].iterdir())


def test_environments_that_do_not_divide(tmp_path):
    ended = run(tmp_path, {"--num-envs": "9"}, {"--num-envs": "9"})
    for status, err in ended:
        assert status == 2
        assert_one_line(err, "--num-envs 9", "multiple of the number of devices, 2")


def test_a_run_that_one_process_does_not_see(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    with started(*(
        ("-m", "jtrust", "resume", str(tmp_path / f"run{i}"), "--coordinator", address,
         "--num-processes", "2", "--process-id", str(i)) for i in range(2)
    )) as processes:
        ended = end_all(processes, 60)
    assert [status for status, *_ in ended] == [2, 2]
    assert_one_line(ended[0][2], "RUN_DIR", "does not exist")


def test_a_directory_that_is_taken_is_told_of_by_the_first(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    (first, said), (second, silent) = run(tmp_path, {}, {})
    assert first == second == 2
    assert_one_line(said, "holds a run")
    assert silent == ""


def test_devices_that_leave_a_process_out(tmp_path):
    ended = run(tmp_path, {"--devices": "1"}, {"--devices": "1"})
    for status, err in ended:
        assert status == 2
        assert_one_line(err, "--devices 1", "as many of each of the 2 processes")
