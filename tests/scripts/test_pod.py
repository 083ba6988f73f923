"""The cost model to a pod, held against sums written out, and the starter of local processes."""

import signal
import sys

import pytest

from scripts.benchmarks import pod
from scripts.launch import local


def ring_by_steps(size, devices, bandwidth):
    """A ring: n - 1 steps that add, and n - 1 that hand round, each of an n-th of the bytes."""
    return sum(size / devices / bandwidth for _ in range(2 * (devices - 1)))


@pytest.mark.parametrize("devices", [2, 3, 8, 256])
def test_a_ring_takes_as_long_as_its_steps(devices):
    assert pod.ring_seconds(5e4, devices, 1e9) == pytest.approx(ring_by_steps(5e4, devices, 1e9))


def test_an_iteration_takes_its_computing_and_each_message():
    links = pod.Links("x", latency=lambda n: 1e-3 * n, bandwidth=lambda n: 1e6)
    found = [{"bytes": 100, "count": 3}, {"bytes": 4000, "count": 2}]
    by_hand = 0.5 + sum(
        4e-3 + ring_by_steps(m["bytes"], 4, 1e6) for m in found for _ in range(m["count"])
    )
    assert pod.iteration_seconds(0.5, found, 4, links) == pytest.approx(by_hand)
    assert pod.iteration_seconds(0.5, found, 1, links) == 0.5


@pytest.mark.parametrize("text, size", [
    ("%a = f32[8,128]{1,0} all-reduce(%b)", 8 * 128 * 4),
    ("%a = (f32[3], (bf16[2,2], pred[5])) all-reduce-start(%b)", 12 + 8 + 5),
    ("%a = u8[] fusion(%b)", 1),
])
def test_bytes_of_a_result(text, size):
    opcode = text.split("(%b)")[0].split()[-1]
    assert pod.result_bytes(text, opcode) == size


def test_efficiency_falls_below_one_half_at_a_power_of_two():
    assert pod.first_below(lambda n: 1 / n**0.5) == 8
    assert pod.first_below(lambda n: 0.9) is None


def python(text):
    return [sys.executable, "-c", text]


def test_local_processes_are_told_of_each_other():
    first, second = local.commands(["x", "train"], 2, 99)
    assert first[2:] == ["--coordinator", "127.0.0.1:99", "--num-processes", "2",
                         "--process-id", "0"]
    assert second[-1] == "1" and first[:2] == second[:2] == ["x", "train"]


def test_the_largest_status_of_local_processes_counts():
    assert local.run([python("raise SystemExit(0)"), python("raise SystemExit(3)")]) == 3


def test_those_that_stay_behind_a_failure_are_ended():
    stubborn = python("import time; time.sleep(60)")
    status = local.run([stubborn, python("raise SystemExit(2)")], patience=0.5, grace=5)
    assert status == 128 + signal.SIGTERM
