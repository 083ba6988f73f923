"""Many runs as one program: each is the run that it would be alone, and goes on as one."""

import json

import jax
import numpy as np
import pytest

import jtrust
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.sweeps import program, session
from jtrust.sweeps.program import Program

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=16, unroll_length=8)
STEPS = 128 * 8


def swept(point, run_dir, **others):
    arguments = dict(
        seeds=2, max_kl=[0.005, 0.02], total_steps=STEPS, devices=2, checkpoint_every=3, **SMALL
    )
    return jtrust.train_many(point, jtrust.TRPO(), run_dir=run_dir, **arguments | others)


@pytest.fixture(scope="module")
def finished(point, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("sweeps") / "whole"
    return run_dir, swept(point, run_dir)


def rows(run_dir):
    found = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in found]


def newest(run_dir):
    return CheckpointReader(run_dir).newest_whole(None)


def assert_same(first, second):
    """Two sweeps: every member's metrics and last state, to the bit."""
    names = sorted(p.name for p in first.iterdir() if p.is_dir())
    assert names and names == sorted(p.name for p in second.iterdir() if p.is_dir())
    for name in names:
        assert rows(first / name) == rows(second / name)
        (step, ours), (other, theirs) = newest(first / name), newest(second / name)
        assert step == other and set(ours) == set(theirs)
        for key, value in ours.items():
            np.testing.assert_array_equal(value, theirs[key])


def test_members_are_the_runs_that_they_would_be_alone(finished, point):
    _, result = finished
    assert [m.name for m in result.members] == [
        "max_kl=0.005,seed=0", "max_kl=0.005,seed=1", "max_kl=0.02,seed=0", "max_kl=0.02,seed=1",
    ]
    for member in result.members:
        alone = jtrust.train(
            point, jtrust.TRPO(max_kl=member.settings["max_kl"]), total_steps=STEPS,
            seed=member.seed, devices=1, **SMALL,
        )
        assert set(alone.metrics) == set(member.metrics)
        for key in ("episode/return", "policy/kl", "policy/entropy", "value/loss"):
            np.testing.assert_allclose(member.metrics[key], alone.metrics[key], rtol=2e-3)
        observation = np.linspace(-1, 1, 6).reshape(3, 2)
        np.testing.assert_allclose(
            member.policy(observation), alone.policy(observation), atol=1e-4
        )


def test_a_member_is_a_run_like_any_other(finished, point, tmp_path):
    import shutil

    run_dir, result = finished
    member = result.members[2]
    policy = jtrust.load_policy(member.run_dir)
    observation = np.ones((4, 2), np.float32)
    np.testing.assert_array_equal(policy(observation), member.policy(observation))
    found = jtrust.evaluate(member.run_dir, episodes=4, env=point)
    assert found["step"] == STEPS and found["episodes"] == 4
    config = json.loads((run_dir / member.name / "config.json").read_text())
    assert config["hyperparameters"]["max_kl"] == 0.02 and config["seed"] == 0
    assert CheckpointReader(run_dir / member.name).steps() == [0, 384, 768, 1024]
    copy = tmp_path / "member"
    shutil.copytree(member.run_dir, copy)
    further = jtrust.resume(copy, STEPS + 256, env=point, devices=1)
    np.testing.assert_array_equal(further.metrics["iteration"], [9, 10])


def test_neither_slots_nor_neighbours_change_a_bit(finished, point, tmp_path):
    swept(point, tmp_path / "turned", seeds=[1, 0], max_kl=[0.02, 0.005])
    assert_same(finished[0], tmp_path / "turned")


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.parametrize("at", [2, 7])
def test_a_sweep_that_was_cut_off_goes_on_exactly(finished, point, tmp_path, at):
    def make_sinks(member):
        def fail(info):
            if (member.seed, info.iteration) == (1, at):
                raise Killed

        return [fail]

    run_dir = tmp_path / "cut"
    with pytest.raises(Killed):
        swept(point, run_dir, make_sinks=make_sinks)
    resumed = jtrust.resume_many(run_dir, env=point, devices=2)
    assert_same(finished[0], run_dir)
    assert all(len(m.metrics["iteration"]) < 8 or at == 2 for m in resumed.members)


def test_members_may_be_at_different_iterations(finished, point, tmp_path):
    """One that somebody else went on with is ahead, and one whose newest checkpoint is damaged
    is behind: each goes on from where it is."""
    run_dir = tmp_path / "uneven"
    swept(point, run_dir, total_steps=STEPS // 2)
    (run_dir / "max_kl=0.02,seed=1" / "512").rename(tmp_path / "lost")
    resumed = jtrust.resume_many(run_dir, STEPS, env=point, devices=2)
    assert [int(m.metrics["iteration"][0]) for m in resumed.members] == [5, 5, 5, 4]
    assert all(newest(run_dir / m.name)[0] == STEPS for m in resumed.members)
    for name in ("max_kl=0.005,seed=0", "max_kl=0.02,seed=1"):
        for key, value in newest(finished[0] / name)[1].items():
            np.testing.assert_array_equal(value, newest(run_dir / name)[1][key])
    assert jtrust.resume_many(run_dir, env=point).members[0].metrics == {}  # nothing is left


@pytest.mark.nightly
def test_a_sweep_that_was_extended_and_cut_off_comes_to_its_new_end(finished, point, tmp_path):
    def make_sinks(member):
        def fail(info):
            if (member.seed, info.iteration) == (1, 6):
                raise Killed

        return [fail]

    run_dir = tmp_path / "extended"
    swept(point, run_dir, total_steps=STEPS // 2)
    with pytest.raises(Killed):
        jtrust.resume_many(run_dir, STEPS, env=point, devices=2, make_sinks=make_sinks)
    jtrust.resume_many(run_dir, env=point, devices=2)
    for name in ("max_kl=0.005,seed=0", "max_kl=0.02,seed=1"):
        assert rows(run_dir / name) == rows(finished[0] / name)
    with pytest.raises(jtrust.BadArgument, match=r"steps=256: .* is already at 1024"):
        jtrust.resume_many(run_dir, 256, env=point)


@pytest.mark.parametrize("at", [
    pytest.param(None, marks=pytest.mark.nightly), 4, pytest.param(5, marks=pytest.mark.nightly),
])
def test_enough_is_enough_at_the_same_iteration(finished, point, tmp_path, at):
    """Alone, in a sweep, beside others that go on, and after a kill."""
    arguments = dict(evaluate_every=2, checkpoint_every=1, total_steps=STEPS)
    seen = swept(point, tmp_path / "seen", **arguments)
    returns = seen.members[0].metrics["evaluation/return"]
    enough = float(returns[1])
    expected = [
        min([i + 3 for i in (1, 3, 5, 7) if m.metrics["evaluation/return"][i] >= enough] + [8])
        for m in seen.members
    ]
    assert expected[0] == 4 and min(expected) < 8
    alone = jtrust.train(
        point, jtrust.TRPO(max_kl=0.005), seed=0, devices=1, evaluate_every=2, stop_at=enough,
        total_steps=STEPS, **SMALL,
    )
    assert len(alone.metrics["step"]) == 4

    def make_sinks(member):
        def fail(info):
            if (member.name, info.iteration) == ("max_kl=0.02,seed=1", at):
                raise Killed

        return [fail] if at else []

    run_dir = tmp_path / "enough"
    try:
        swept(point, run_dir, stop_at=enough, make_sinks=make_sinks, **arguments)
    except Killed:
        jtrust.resume_many(run_dir, env=point, devices=2)
    found = [len(rows(run_dir / m.name)) for m in seen.members]
    assert found == expected


@pytest.mark.nightly
def test_what_cannot_be_written_is_one_runs_trouble(point, tmp_path, monkeypatch):
    from jtrust.runs.checkpoints import CheckpointWriter

    write = CheckpointWriter.write

    def fails(self, step, state):
        if step == 512 and "seed=1" in str(self.directory):
            raise OSError("no room left")
        write(self, step, state)

    monkeypatch.setattr(CheckpointWriter, "write", fails)
    run_dir = tmp_path / "full"
    with pytest.raises(OSError, match="no room left"):
        jtrust.train_many(
            point, jtrust.TRPO(), seeds=3, total_steps=512, run_dir=run_dir, devices=1, **SMALL
        )
    assert [newest(run_dir / f"seed={s}")[0] for s in (0, 2)] == [512, 512]
    monkeypatch.undo()
    jtrust.resume_many(run_dir, env=point, devices=1)
    assert newest(run_dir / "seed=1")[0] == 512


def test_no_more_share_a_program_than_asked_for(point, tmp_path):
    jtrust.train_many(
        point, jtrust.TRPO(), seeds=3, total_steps=128, run_dir=tmp_path / "one", at_once=1,
        devices=4, **SMALL,
    )
    group = json.loads((tmp_path / "one" / "sweep.json").read_text())["groups"][0]
    assert (group["slots"], group["devices"]) == (1, 1)


@pytest.mark.nightly
def test_more_members_than_slots_take_turns(finished, point, tmp_path):
    lines = []

    class Heard(session.SilentSweep):
        def note(self, text):
            lines.append(text)

    result = swept(
        point, tmp_path / "turns", at_once=2, make_progress=lambda title, members: Heard()
    )
    assert "4 runs: 2 settings x 2 seeds; 1 program to compile" in lines
    for ours, theirs in zip(result.members, finished[1].members, strict=True):
        assert ours.name == theirs.name and len(ours.metrics["step"]) == 8
        np.testing.assert_allclose(
            ours.metrics["policy/entropy"], theirs.metrics["policy/entropy"], rtol=1e-3
        )
    assert json.loads((tmp_path / "turns" / "sweep.json").read_text())["groups"][0]["slots"] == 2


def test_what_does_not_fit_into_memory_is_told_and_takes_turns(point, monkeypatch):
    lines = []

    class Heard(session.SilentSweep):
        def note(self, text):
            lines.append(text)

    def one_fits(devices):
        return 1.2 * needed[0] / program._SHARE

    needed = []
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), devices=1, **SMALL)
    parts = program.parts_of_memory(
        Program(trainer, (), 1, tuple(jax.devices()[:1])).lower().compile()
    )
    needed.append(program.at_its_highest(parts) + parts["arguments"])
    monkeypatch.setattr(program, "available", one_fits)
    arguments = dict(seeds=3, total_steps=256, devices=1, **SMALL)
    result = jtrust.train_many(
        point, jtrust.TRPO(), make_progress=lambda *_: Heard(), **arguments
    )
    assert any("3 at once do not fit into memory" in line for line in lines)
    assert [len(m.metrics["step"]) for m in result.members] == [2, 2, 2]
    with pytest.raises(jtrust.BadArgument, match="at_once=3: do not fit into memory"):
        jtrust.train_many(point, jtrust.TRPO(), at_once=3, **arguments)
    monkeypatch.setattr(program, "available", lambda devices: needed[0] // 2)
    with pytest.raises(jtrust.BadArgument, match=r"num_envs=.*does not fit into memory"):
        jtrust.train_many(point, jtrust.TRPO(), **arguments)


def test_a_member_that_fails_stops_alone(point, tmp_path):
    def make_sinks(member):
        class Breaks(jtrust.Sink):
            def on_iteration(self, info):
                if member.seed == 1 and info.iteration == 3:
                    raise jtrust.TrainingFailed("gave NaN or infinity at every step")

        return [Breaks()]

    run_dir = tmp_path / "one-fails"
    result = jtrust.train_many(
        point, jtrust.TRPO(), seeds=3, total_steps=STEPS, run_dir=run_dir, devices=1,
        make_sinks=make_sinks, **SMALL,
    )
    whole, failed, other = result.members
    assert failed.ended == "gave NaN or infinity at every step"
    assert len(failed.metrics["step"]) == 3
    assert [len(m.metrics["step"]) for m in (whole, other)] == [8, 8]
    again = jtrust.resume_many(run_dir, env=point, devices=1)
    assert again.members[1].ended == failed.ended and not again.members[1].metrics
    assert "seed=1: gave NaN" in again.compare().as_text()


def test_evaluation_leaves_the_runs_as_they_are(finished, point, tmp_path):
    result = swept(point, tmp_path / "evaluated", evaluate_every=3)
    for member, without in zip(result.members, finished[1].members, strict=True):
        evaluated = member.metrics["evaluation/return"]
        np.testing.assert_array_equal(
            np.isfinite(evaluated), [False, False, True, False, False, True, False, True]
        )
        for key, value in without.metrics.items():
            if not key.startswith("time/"):
                np.testing.assert_array_equal(member.metrics[key], value)
    stored = jtrust.evaluate(result.members[0].run_dir, episodes=32, env=point, step=768)
    np.testing.assert_allclose(
        stored["return_mean"], result.members[0].metrics["evaluation/return"][5], rtol=1e-4
    )


def test_nothing_is_sent_between_devices(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), devices=1, **SMALL)
    text = Program(trainer, (), 4, tuple(jax.devices()[:2])).lower().compile().as_text()
    assert "fusion" in text
    for name in ("all-reduce(", "all-gather(", "all-to-all(", "collective-permute("):
        assert name not in text
