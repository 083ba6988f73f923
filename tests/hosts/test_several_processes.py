"""Runs of several processes: as one of as many devices, stopped, killed, resumed elsewhere."""

import json
import re
import shutil
import signal
import time

import numpy as np
import pytest

from tests.hosts.processes import (
    ENV,
    PER_ITERATION,
    TRAIN,
    arrays,
    assert_same_run,
    end_all,
    one,
    rows,
    started,
    together,
    wait_for_rows,
)

pytestmark = pytest.mark.slow

STEPS = str(6 * PER_ITERATION)
# Goes on until it is stopped.
LONG = str(100_000 * PER_ITERATION)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Six iterations of two processes with a device each."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    with together(2, *TRAIN, "--steps", STEPS, "--run-dir", str(run_dir)) as processes:
        (first, second) = end_all(processes)
    assert first[0] == second[0] == 0, (first, second)
    return run_dir, first, second


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same of one process with two devices."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    one(*TRAIN, "--steps", STEPS, "--run-dir", str(run_dir), "--devices", "2", devices=2)
    return run_dir


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Six iterations of PPO, two processes with two devices each."""
    run_dir = tmp_path_factory.mktemp("pairs") / "run"
    with together(
        2, *TRAIN, "--algorithm", "ppo", "--steps", STEPS, "--run-dir", str(run_dir), devices=2
    ) as processes:
        assert [status for status, *_ in end_all(processes)] == [0, 0]
    return run_dir


def test_two_processes_train_what_one_with_two_devices_does(whole, alone):
    run_dir, first, second = whole
    assert_same_run(run_dir, alone)
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["devices"], config["processes"]) == (2, 2)
    assert "done: 768 steps" in first[1]
    assert second[1] == second[2] == ""  # the first alone speaks


@pytest.mark.nightly
def test_two_processes_of_two_devices_train_what_one_of_four_does(pairs, tmp_path):
    one(*TRAIN, "--algorithm", "ppo", "--steps", STEPS, "--run-dir", str(tmp_path / "one"),
        "--devices", "4", devices=4, gloo=True)
    assert_same_run(pairs, tmp_path / "one")


@pytest.mark.nightly
def test_one_process_goes_on_as_two(whole, alone, tmp_path):
    run_dir = cut(alone, tmp_path)
    with together(2, "resume", str(run_dir)) as processes:
        ended = end_all(processes)
    assert [status for status, *_ in ended] == [0, 0], ended
    assert "2 devices of 2 processes; the run was started on 2 devices" in ended[0][2]
    assert_same_run(run_dir, whole[0])


@pytest.mark.nightly
def test_four_processes_go_on_as_two(pairs, tmp_path):
    run_dir = tmp_path / "run"
    with together(
        4, *TRAIN, "--algorithm", "ppo", "--steps", str(3 * PER_ITERATION),
        "--run-dir", str(run_dir),
    ) as processes:
        assert [status for status, *_ in end_all(processes)] == [0] * 4
    with together(2, "resume", str(run_dir), "--steps", STEPS, devices=2) as processes:
        assert [status for status, *_ in end_all(processes)] == [0, 0]
    assert_same_run(run_dir, pairs)


def cut(run_dir, tmp_path):
    """A copy of a run that has its first checkpoints alone."""
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    for step in (4 * PER_ITERATION, 6 * PER_ITERATION):
        shutil.rmtree(copy / str(step))
    return copy


def test_a_signal_at_one_stops_all_and_they_go_on_exactly(whole, tmp_path):
    run_dir = tmp_path / "run"
    with together(2, *TRAIN, "--steps", LONG, "--run-dir", str(run_dir)) as processes:
        wait_for_rows(run_dir, 3)
        processes[1].popen.send_signal(signal.SIGTERM)
        time.sleep(0.1)  # as schedulers do: everybody is told, one behind the other
        processes[0].popen.send_signal(signal.SIGTERM)
        first, second = end_all(processes)
    assert first[0] == second[0] == 143, (first, second)
    assert "go on with: jtrust resume" in first[1]
    done = len(rows(run_dir))
    assert int(arrays(run_dir)["iteration"]) == done
    (run_dir / "config.json").write_text(
        (run_dir / "config.json").read_text().replace(LONG, STEPS)
    )
    steps = str(max(int(STEPS), (done + 2) * PER_ITERATION))
    with together(2, "resume", str(run_dir), "--steps", steps) as processes:
        assert [status for status, *_ in end_all(processes)] == [0, 0]
    assert rows(run_dir)[:6] == rows(whole[0])[:6]
    assert len(rows(run_dir)) == int(steps) // PER_ITERATION


def test_two_processes_go_on_as_one_with_one_device_up_to_rounding(whole, tmp_path):
    run_dir = cut(whole[0], tmp_path)
    with started(
        ("-m", "jtrust", "resume", str(run_dir), "--devices", "1"), devices=1
    ) as (process,):
        status, _, err = process.end()
    assert status == 0 and "up to rounding" in err, err
    for name, value in arrays(whole[0]).items():
        other = arrays(run_dir)[name]
        np.testing.assert_allclose(other, value, rtol=2e-3, atol=2e-3, err_msg=name)


@pytest.mark.parametrize("dies", [0, pytest.param(1, marks=pytest.mark.nightly)])
def test_where_one_is_killed_the_other_says_so_and_ends(tmp_path, dies):
    run_dir = tmp_path / "run"
    with together(2, *TRAIN, "--steps", LONG, "--run-dir", str(run_dir)) as processes:
        wait_for_rows(run_dir, 3)
        processes[dies].popen.kill()
        begun = time.monotonic()
        status, _, err = processes[1 - dies].end(60)
    assert status == 1 and time.monotonic() - begun < 60
    (said,) = [line for line in err.splitlines() if line.startswith("jtrust:")]
    assert said.startswith(
        f"jtrust: another process of this run is gone, and this one stops; go on from the last "
        f"checkpoint: jtrust resume {run_dir}"
    ), err
    assert int(arrays(run_dir)["iteration"]) % 2 == 0  # whole, and of those that were asked for


@pytest.mark.nightly
def test_what_all_hold_alike_is_the_same_on_all_after_two_hundred_iterations(tmp_path):
    with started(
        *(("-m", "tests.hosts.replicas", str(tmp_path / "port"), str(i)) for i in range(2))
    ) as processes:
        for status, out, err in end_all(processes, 240):
            assert status == 0, err
            (count,) = re.findall(r"(\d+) arrays are alike", out)
            assert int(count) == 20, out


@pytest.mark.nightly
def test_profile_traces_the_first(tmp_path):
    with together(
        2, "profile", ENV, "--num-envs", "8", "--unroll-length", "16", "--iterations", "1",
        "--repeats", "1", "--json", "--trace-dir", str(tmp_path / "trace"),
    ) as processes:
        first, second = end_all(processes, 240)
    assert first[0] == second[0] == 0, (first, second)
    found = json.loads(first[1])  # nothing of gloo's among it
    assert found["trace_dir"] == str(tmp_path / "trace" / "host0") and found["devices"] == 2
    assert second[1] == ""
