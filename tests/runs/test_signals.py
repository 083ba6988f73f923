"""Ctrl-C and SIGTERM from Python: a checkpoint, then the signal to whoever handled it before."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import jtrust
from jtrust.runs.checkpoints import CheckpointReader, CheckpointWriter
from jtrust.runs.directory import RunDirectory
from jtrust.runs.metrics import JsonLines

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=8, devices=1)
FOR_EVER = dict(total_steps=64 * 10**6, checkpoint_every=10**6, **SMALL)
TESTS = str(Path(__file__).parents[1])


class Sends:
    """A progress that sends this process signals at an iteration."""

    def __init__(self, *numbers, at=3):
        self.numbers, self.at = numbers, at

    def __call__(self, *_):
        return self

    def update(self, row):
        if row["iteration"] == self.at:
            for number in self.numbers:
                os.kill(os.getpid(), number)

    def note(self, text): ...

    def close(self): ...


def is_free(path):
    directory = RunDirectory(path)
    directory.lock()
    directory.unlock()
    return True


def test_ctrl_c_ends_a_loop_over_seeds_behind_a_checkpoint(tmp_path, point):
    begun = []
    with pytest.raises(KeyboardInterrupt):
        for seed in range(3):
            begun.append(seed)
            jtrust.train(point, seed=seed, run_dir=tmp_path / str(seed),
                         make_progress=Sends(signal.SIGINT), **FOR_EVER)
    assert begun == [0] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    step, _ = CheckpointReader(tmp_path / "0").newest_whole()
    rows = (tmp_path / "0" / "metrics.jsonl").read_text().splitlines()
    assert step == 64 * len(rows) > 0 and is_free(tmp_path / "0")
    with pytest.raises(KeyboardInterrupt):
        jtrust.resume(tmp_path / "0", env=point, devices=1,
                      make_progress=Sends(signal.SIGINT, at=len(rows) + 2))
    assert CheckpointReader(tmp_path / "0").newest_whole()[0] > step and is_free(tmp_path / "0")


def test_a_handler_of_the_users_own_is_called_and_training_returns(tmp_path, point):
    heard = []
    previous = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(
        (number, is_free(tmp_path / "r"), CheckpointReader(tmp_path / "r").steps()[-1] > 0)
    ))
    try:
        result = jtrust.train(point, run_dir=tmp_path / "r", make_progress=Sends(signal.SIGTERM),
                              **FOR_EVER)
    finally:
        signal.signal(signal.SIGTERM, previous)
    # Called when the checkpoint is on the disk and others may write there.
    assert heard == [(signal.SIGTERM, True, True)] and result.stopped_by == signal.SIGTERM


def test_who_wants_no_signal_handed_on_gets_its_number(point):
    result = jtrust.train(point, make_progress=Sends(signal.SIGINT), hand_on_signals=False,
                          **FOR_EVER)
    assert result.stopped_by == signal.SIGINT


def test_a_signal_is_not_lost_where_training_fails(point):
    class Fails(Sends):
        def update(self, row):
            super().update(row)
            if row["iteration"] == 3:
                raise RuntimeError("no room")

    with pytest.raises(KeyboardInterrupt):
        jtrust.train(point, make_progress=Fails(signal.SIGINT), **FOR_EVER)


def test_a_second_ctrl_c_stops_at_once_and_leaves_the_directory_whole(tmp_path, point):
    with pytest.raises(KeyboardInterrupt):
        jtrust.train(point, run_dir=tmp_path / "r",
                     make_progress=Sends(signal.SIGINT, signal.SIGINT), **FOR_EVER)
    assert CheckpointReader(tmp_path / "r").newest_whole()[0] == 0 and is_free(tmp_path / "r")


def test_sigterm_ends_the_process_as_it_would_have_behind_a_checkpoint(tmp_path):
    code = f"""
        import sys; sys.path[:0] = [{TESTS!r}, {TESTS + "/runs"!r}]
        import signal, jtrust
        from conftest import Point
        from test_signals import FOR_EVER, Sends
        for seed in range(3):
            print("begun", flush=True)
            jtrust.train(Point(), run_dir={str(tmp_path)!r} + f"/{{seed}}",
                         make_progress=Sends(signal.SIGTERM), **FOR_EVER)
    """
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert process.returncode == -signal.SIGTERM and process.stdout == "begun\n"
    assert "Traceback" not in process.stderr
    assert CheckpointReader(tmp_path / "0").steps()[-1] > 0


# What ends a run otherwise, while a checkpoint is on its way to the disk.


@pytest.mark.parametrize("failure", ["metrics", "progress", "interrupt"])
def test_a_directory_stays_locked_until_the_last_byte(failure, tmp_path, point, monkeypatch):
    order, going = [], threading.Event()
    write, unlock = CheckpointWriter.write, RunDirectory.unlock

    def slow(self, step, state):
        if step:
            going.wait(1.0)  # until the run has failed, and then some
            threading.Event().wait(0.3)
        write(self, step, state)
        order.append(f"written {step}")

    def unlocked(self):
        order.append("unlocked")
        unlock(self)

    def fail(*_):
        going.set()
        raise {"metrics": OSError("no room"), "interrupt": KeyboardInterrupt()}.get(
            failure, ValueError("mine")
        )

    class Progress(Sends):
        def update(self, row):
            if row["iteration"] == 3 and failure != "metrics":
                fail()

    def row(self, info):
        if info.iteration == 3:
            fail()

    monkeypatch.setattr(CheckpointWriter, "write", slow)
    monkeypatch.setattr(RunDirectory, "unlock", unlocked)
    if failure == "metrics":
        monkeypatch.setattr(JsonLines, "on_iteration", row)
    with pytest.raises((OSError, ValueError, KeyboardInterrupt)):
        jtrust.train(point, run_dir=tmp_path / "r", total_steps=64 * 100, checkpoint_every=2,
                     make_progress=Progress(), **SMALL)
    assert order == ["written 0", "written 128", "unlocked"]
    assert not [t for t in threading.enumerate() if t.name.startswith("checkpoint")]
    assert is_free(tmp_path / "r")


def test_a_service_that_cannot_be_opened_leaves_nothing_locked_or_open(
    tmp_path, point, monkeypatch
):
    import tensorboardX

    closed = []
    close = JsonLines.close
    monkeypatch.setattr(JsonLines, "close", lambda self: (closed.append(1), close(self)))
    monkeypatch.setattr(tensorboardX, "SummaryWriter", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        jtrust.train(point, total_steps=64, run_dir=tmp_path / "r", tensorboard=True, **SMALL)
    assert closed == [1] and is_free(tmp_path / "r")
