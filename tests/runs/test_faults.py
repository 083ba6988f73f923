"""Faults injected for real, and what is promised of each.

| fault | promise |
| --- | --- |
| the newest checkpoint cut short, a file missing, bytes flipped, or all of it gone | a warning
  that names it; the newest whole one is taken; nothing is deleted |
| no checkpoint whole, or none at all | one line, nothing changed |
| a damaged `config.json`, another version, network or environment | one line with what differs |
| no room for a checkpoint | training goes on with a warning; the last good one stays whole |
| no room for metrics | training stops with one line; the last good checkpoint stays whole |
| the run's directory lost | training stops with one line |
| a second process in the same directory | one line that says who holds it |
| environments that give NaN or infinity | see tests/training/test_iteration.py and below |
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.directory import RunDirectory

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=16, unroll_length=8, devices=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("faults") / "original"
    env = jtrust.make_env("brax/fast", episode_length=30)
    jtrust.train(env, total_steps=128 * 4, run_dir=path, checkpoint_every=2, **SMALL)
    return path


@pytest.fixture
def run_dir(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


def contents(path):
    return {
        p.relative_to(path): p.read_bytes() for p in path.rglob("*")
        if p.is_file() and p.name not in ("lock", "metrics.jsonl", "config.json")
    }


def largest_file(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(path):
    file = largest_file(path / "policy")
    os.truncate(file, file.stat().st_size // 2)


def flip_bytes(path):
    file = largest_file(path / "policy")
    data = bytearray(file.read_bytes())
    for i in range(len(data) // 3, len(data) // 3 + 8):
        data[i] ^= 0xFF
    file.write_bytes(bytes(data))


def remove_a_file(path):
    largest_file(path / "policy").unlink()


def remove_checksums(path):
    shutil.rmtree(path / "checksums")


def remove_everything(path):
    shutil.rmtree(path)
    path.mkdir()


def scramble_checksums(path):
    file = path / "checksums" / "metadata"
    file.write_text(file.read_text().replace("float32", "float64"))


def checksums_of_another_shape(path):
    (path / "checksums" / "metadata").write_text("[]")


DAMAGE = [cut, flip_bytes, remove_a_file, remove_checksums, remove_everything, scramble_checksums,
          checksums_of_another_shape]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_a_damaged_checkpoint_is_named_and_the_newest_whole_one_taken(damage, run_dir):
    damage(run_dir / "512")
    before = contents(run_dir)
    x = jnp.ones(2)
    with pytest.warns(UserWarning, match=r"512 is damaged"):
        policy = jtrust.load_policy(run_dir)
    np.testing.assert_array_equal(policy(x), jtrust.load_policy(run_dir, step=256)(x))
    with pytest.warns(UserWarning, match=r"512 is damaged"):
        assert jtrust.evaluate(run_dir, episodes=2)["step"] == 256
    assert contents(run_dir) == before


@pytest.mark.parametrize("damage", [flip_bytes, remove_everything], ids=lambda f: f.__name__)
def test_resuming_behind_damage_ends_as_if_nothing_had_been(damage, run_dir, original):
    damage(run_dir / "512")
    damaged = contents(run_dir / "512")
    with pytest.warns(UserWarning, match=r"512 is damaged"):
        jtrust.resume(run_dir, devices=1)
    assert contents(run_dir / "512.damaged-1") == damaged  # set aside, not deleted
    ours, theirs = CheckpointReader(run_dir).read(512), CheckpointReader(original).read(512)
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [r["iteration"] for r in rows] == [1, 2, 3, 4]


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_without_a_whole_checkpoint_there_is_one_line_and_nothing_changes(
    command, run_dir, capfd
):
    for step in (0, 256, 512):
        flip_bytes(run_dir / str(step))
    before = contents(run_dir)
    assert main([command, str(run_dir)]) == 2
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "warning" not in line] == lines[-1:]
    assert str(run_dir) in lines[-1] and "none of its 3 checkpoints" in lines[-1]
    for step in (0, 256, 512):
        shutil.rmtree(run_dir / str(step))
    assert main([command, str(run_dir)]) == 2
    assert "holds no checkpoint" in capfd.readouterr().err
    assert contents(run_dir).keys() == {k for k in before if k.parts[0] not in ("0", "256", "512")}


def edited(change):
    def edit(run_dir):
        path = run_dir / "config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))
    return edit


@pytest.mark.parametrize(("edit", "says"), [
    (lambda d: (d / "config.json").write_text("{not json"), "no JSON"),
    (lambda d: (d / "config.json").write_bytes(b"\xff\xfe\x00"), "cannot be read"),
    (lambda d: (d / "config.json").write_text("[1, 2]"), "format None"),
    (edited(lambda c: c.update(format=99)), "format 99"),
    (edited(lambda c: c.update(jtrust="9.1.0")), "jtrust 9.1.0"),
    (edited(lambda c: c.pop("seed")), "lacks seed"),
    (edited(lambda c: c.update(colour="red")), "unknown colour"),
    (edited(lambda c: c.update(num_envs="16")), "num_envs = '16'"),
    (edited(lambda c: c.update(num_envs=32)), r"float32\[16"),
    (edited(lambda c: c["network"].update(policy_layers=[8])), "policy"),
    (edited(lambda c: c["network"].update(widths=[8])), "widths"),
    (edited(lambda c: c["hyperparameters"].update(max_kl=-1)), "max.kl"),
    (edited(lambda c: c.update(algorithm="ppo")), "hyperparameters"),
    (edited(lambda c: c.update(env="brax/reacher", env_options={})), "observations"),
    (edited(lambda c: c.update(env="brax/slow", env_options={})), "slow"),
])
def test_a_configuration_that_does_not_fit_is_refused_with_what_differs(
    edit, says, run_dir, capfd
):
    edit(run_dir)
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"}
    assert main(["resume", str(run_dir), "--devices", "1"]) == 2
    # Under pytest also the deprecation warnings show that Python otherwise hides.
    (line,) = (x for x in capfd.readouterr().err.splitlines() if "warning" not in x)
    assert line.startswith("jtrust: ")
    assert re.search(says, line), line
    assert before == {
        p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"
    }


LIMITED = """
    import resource, sys
    import jax, jtrust
    from jtrust.cli import main
    env = jtrust.make_env("brax/fast", episode_length=30)
    class Limit:  # what progress is told; the first row sets the quota
        def __init__(self, *_): pass
        def update(self, row):
            if row["iteration"] == {after}:
                resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))
            if row["iteration"] == {until}:
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        def note(self, text): print(text, file=sys.stderr)
        def close(self): pass
    import jtrust.runs.progress as progress
    progress.make_progress = Limit
    sys.exit(main(["train", "brax/fast", "--num-envs", "16", "--unroll-length", "8", "--steps",
                   "1280", "--checkpoint-every", "1", "--run-dir", sys.argv[1], "--devices", "1"]))
"""


def run_limited(run_dir, after, limit, until):
    code = textwrap.dedent(LIMITED.format(after=after, limit=limit, until=until))
    return subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, timeout=300
    )


def test_without_room_for_checkpoints_training_goes_on_with_a_warning(tmp_path):
    # A quota on a file's size: metrics still fit, the arrays of a checkpoint do not.
    process = run_limited(tmp_path / "r", after=3, limit=12_000, until=6)
    assert process.returncode == 0, process.stderr
    assert "could not be written" in process.stderr and "Traceback" not in process.stderr
    reader = CheckpointReader(tmp_path / "r")
    for step in reader.steps():
        reader.read(step)
    assert reader.steps()[-1] == 1280 and len(reader.steps()) < 11


def test_without_room_for_metrics_training_stops_with_one_line(tmp_path):
    process = run_limited(tmp_path / "r", after=3, limit=600, until=10_000)
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert process.stderr.splitlines()[-1].startswith("jtrust: ")
    reader = CheckpointReader(tmp_path / "r")
    step, _ = reader.newest_whole()
    # With room again it goes on from there, and the half line is gone.
    result = jtrust.resume(tmp_path / "r", devices=1)
    rows = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").open()]
    assert [r["iteration"] for r in rows] == list(range(1, 11))
    assert step > 0 and result.metrics["step"][-1] == 1280


def test_a_lost_directory_ends_training_with_one_line(tmp_path, capfd):
    class Lose:
        def __init__(self, *_): ...

        def update(self, row):
            if row["iteration"] == 3:
                (tmp_path / "r").rename(tmp_path / "elsewhere")

        def note(self, text): ...

        def close(self): ...

    with pytest.raises(OSError, match="could not be written") as caught:
        jtrust.train(
            jtrust.make_env("brax/fast"), total_steps=128 * 10, checkpoint_every=4,
            run_dir=tmp_path / "r", make_progress=Lose, **SMALL,
        )
    assert "\n" not in str(caught.value)
    step, _ = CheckpointReader(tmp_path / "elsewhere").newest_whole()
    assert step in (0, 512)


def test_two_processes_cannot_train_into_one_directory(run_dir, capfd):
    holder = RunDirectory(run_dir)
    holder.lock()
    try:
        assert main(["resume", str(run_dir), "--steps", "9999"]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert f"in use by process {os.getpid()}" in line
        assert main(["evaluate", str(run_dir), "--episodes", "2"]) == 0  # reading is free
    finally:
        holder.unlock()
    assert main(["resume", str(run_dir), "--devices", "1"]) == 0


class Sick:
    """brax/fast in which one start of four leads to an infinity at the fourth step."""

    action_size = 1

    def __init__(self, always=False):
        self.env = jtrust.make_env("brax/fast")
        self.always = always

    def reset(self, key):
        marked = jax.random.uniform(key) < 1 / 4
        state = self.env.reset(key)
        info = {"marked": marked | self.always, "steps": jnp.int32(0)}
        return dataclasses.replace(state, info=info)

    def step(self, state, action):
        info = state.info
        new = self.env.step(dataclasses.replace(state, info={}), action)
        steps = info["steps"] + 1
        bad = jnp.where(info["marked"] & ((steps == 4) | self.always), jnp.inf, 0.0)
        return dataclasses.replace(
            new, obs=new.obs + bad, reward=new.reward + bad - bad,
            info={"marked": info["marked"], "steps": steps},
        )


@pytest.mark.parametrize("algorithm", [
    jtrust.TRPO(), pytest.param(jtrust.PPO(minibatches=4), marks=pytest.mark.nightly),
], ids=lambda a: a.name)
def test_one_sick_environment_does_not_spoil_the_others(algorithm):
    result = jtrust.train(Sick(), algorithm, total_steps=16 * 32 * 4, num_envs=16,
                          unroll_length=32, devices=1)
    metrics = result.metrics
    assert metrics["environment/nonfinite"].sum() > 0
    for key in ("policy/kl", "value/loss", "policy/entropy", "value/explained_variance"):
        assert np.all(np.isfinite(metrics[key])), key
    assert np.all(metrics["policy/accepted"] == 1)
    assert np.all(metrics["policy/skipped"] == 0) and np.all(metrics["value/skipped"] == 0)
    moments = result.state.observation_statistics
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(moments))


def test_where_nothing_is_finite_training_stops_and_the_last_good_checkpoint_stays(tmp_path):
    with pytest.raises(jtrust.TrainingFailed, match="NaN or infinity at every step"):
        jtrust.train(Sick(always=True), total_steps=128 * 50, run_dir=tmp_path / "r",
                     checkpoint_every=1000, **SMALL)
    assert CheckpointReader(tmp_path / "r").newest_whole()[0] == 0


def test_loading_a_checkpoint_unpickles_nothing(run_dir, monkeypatch):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(np, "load", refuse)
    assert len(CheckpointReader(run_dir).read(512)) > 10
    assert jtrust.load_policy(run_dir)(jnp.zeros(2)).shape == (1,)
