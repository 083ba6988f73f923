"""A run directory from elsewhere: every file of it with hostile contents.

Whatever it holds, it is answered by one line or passed over, no code of it is run, nothing outside
it is touched, and nothing is made room for that its own configuration does not need.
"""

import json
import os
import shutil
import sys
import textwrap
import warnings

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore

import jtrust
from jtrust.cli import main
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.directory import RunDirectory

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=16, unroll_length=8, devices=1)
DEEP = "[" * 100_000 + "]" * 100_000
ESCAPES = "\x1b]0;owned\x07\x1b[2J\r\u202e"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "original"
    env = jtrust.make_env("brax/fast", episode_length=30)
    jtrust.train(env, total_steps=128 * 2, run_dir=path, checkpoint_every=1, **SMALL)
    return path


@pytest.fixture
def run_dir(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


@pytest.fixture
def outside(tmp_path):
    """A file and a directory of the user's, and what they hold."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious\n" * 100)
    yield tmp_path / "mine"
    assert (tmp_path / "mine" / "file").read_text() == "precious\n" * 100
    assert os.listdir(tmp_path / "mine") == ["file"]


def refused(arguments, capfd):
    """The one line with which a command answers."""
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert main(arguments) == 2
    captured = capfd.readouterr()
    lines = [x for x in captured.err.splitlines() if not x.startswith("jtrust: warning: ")]
    assert captured.out == "" and len(lines) == 1, captured
    assert all(c.isprintable() or c == "\n" for c in captured.err)
    assert lines[0].startswith("jtrust: ") and len(lines[0]) < 2500
    return lines[0]


def edited(path, change):
    config = json.loads((path / "config.json").read_text())
    change(config)
    (path / "config.json").write_text(json.dumps(config))


def put(*keys, value):
    def change(config):
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value
    return change


NUMBERS = [-1, 0, 10**18, 10**400, 1.5, True, None, "16", [16], {"a": 1}]
CONFIGS = {
    "num_envs": [put("num_envs", value=v) for v in (*NUMBERS, 2**24, 32)],
    "total_steps": [put("total_steps", value=v) for v in NUMBERS],
    "zero": [put(k, value=0) for k in ("num_envs", "unroll_length", "checkpoint_every", "devices")],
    "seed": [put("seed", value=v) for v in (-1, 2**40)],
    "length": [put("episode_length", value=v) for v in (-1, 10**30)],
    "keep": [put("keep_checkpoints", value=v) for v in (-1, "all", 10**20)],
    "flags": [put(k, value=v) for k in ("tensorboard", "wandb", "mlflow")
              for v in (1, "yes", None, [])],
    "wandb": [put("wandb_id", value=v) for v in ("../../x", ESCAPES, 3, "x" * 10_000)],
    "mlflow": [put("mlflow_id", value=v) for v in ("../../x", "a' or '1", 3, "x" * 10_000)],
    "layers": [put("network", k, value=v) for k in ("policy_layers", "value_layers") for v in (
        [65536] * 3, [10**18], [64] * 100_000, "64", {"a": 1}, [[64]], [None],
    )],
    "network": [
        put("network", "activation", value=["tanh"]), put("network", "squash", value="no"),
        put("network", "initial_std", value=10**400), put("network", "x", value=1),
        put("network", value=[]), put("network", "activation", value=ESCAPES),
    ],
    "hyperparameters": [put("hyperparameters", k, value=v) for k, v in (
        ("max_kl", 10**400), ("max_kl", "x"), ("max_kl", []), ("cg_iterations", 10**18),
        ("cg_iterations", {}), ("discount", None), ("value_minibatches", 10**30), ("x", 1),
    )],
    "algorithm": [put("algorithm", value=v) for v in ("os:system", ESCAPES, "../trpo", ["trpo"])],
    "observation": [put("observation", value=v) for v in (
        {"shape": [10**12], "dtype": "float32"}, {"shape": [-2], "dtype": "float32"},
        {"shape": [2.0], "dtype": "float32"}, {"shape": [2, 2], "dtype": "float32"},
        {"shape": "2", "dtype": "float32"}, {"shape": [2], "dtype": ["object"]}, {}, {"shape": [2]},
        {"dictionary": {"a": {"shape": [2], "dtype": "float32"}}, "policy": "b", "value": "a"},
        {"dictionary": [], "policy": "b", "value": "a"}, {"dictionary": {"a": 3}, "policy": "a",
                                                          "value": "a"},
    )],
    "action": [put("action", value=v) for v in (
        {}, {"kind": "box"}, {"kind": ["box"]}, {"kind": "os:system", "n": 1},
        {"kind": "discrete", "n": 10**18}, {"kind": "discrete", "n": 2**31 - 1},
        {"kind": "box", "size": 2**31 - 1}, {"kind": "box", "size": 1, "low": "a", "high": 1},
        {"kind": "box", "size": 1, "low": 10**400, "high": 1}, {"kind": "box", "size": 1, "x": 1},
        {"kind": "bins", "size": 10**6, "bins": 65536}, {"kind": "bins", "size": [], "bins": 3},
    )],
    "names": [
        put("own_networks", value={"policy_network": 3}), put("own_networks", value={"x": "A"}),
        put("own_networks", value={"policy_network": ESCAPES}), put("jtrust", value=ESCAPES),
        put("jtrust", value="x" * 100_000), put("random_keys", value=3), put(ESCAPES, value=1),
    ],
    "format": [put("format", value=v) for v in (True, 1.0, "1", [1], ESCAPES, 10**400, None)],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_no_run_has_is_refused(name, run_dir, capfd, monkeypatch):
    monkeypatch.setattr(ocp.Checkpointer, "restore", None)  # nothing is read
    text = (run_dir / "config.json").read_text()
    for change in CONFIGS[name]:
        (run_dir / "config.json").write_text(text)
        edited(run_dir, change)
        rows = (run_dir / "metrics.jsonl").read_bytes()
        refused(["resume", str(run_dir), "--devices", "1"], capfd)
        assert (run_dir / "metrics.jsonl").read_bytes() == rows  # and nothing is lost


@pytest.mark.parametrize("text", [
    DEEP, '{"format": 1, "env": ' + DEEP + "}", '{"a":' * 100_000 + "1" + "}" * 100_000,
    '{"format": ' + "9" * 5000 + "}", "NaN", "", '{"format": 1}', "[" * 60 + "]" * 60,
    '{"env": "' + ESCAPES.replace("\x1b", "\\u001b") + '"}', "\x1b[2J",
], ids=lambda x: x[:12].encode("unicode_escape").decode())
def test_a_configuration_that_is_no_object_is_refused(text, run_dir, capfd):
    (run_dir / "config.json").write_text(text)
    for command in ("resume", "evaluate"):
        refused([command, str(run_dir)], capfd)
    with pytest.raises(jtrust.BadArgument):
        jtrust.load_policy(run_dir)


@pytest.mark.parametrize("env", [
    "brax/../../etc/passwd", "/etc/passwd", "brax/" + ESCAPES, ESCAPES, "playground/__class__",
    "gymnax/os:system", "", "a" * 100_000, "brax/fast+scale_reward", "../x:y/z",
])
def test_a_name_that_is_no_environments_is_refused_in_one_line(env, run_dir, capfd):
    edited(run_dir, put("env", value=env))
    for command in ("resume", "evaluate"):
        assert "root:" not in refused([command, str(run_dir), "--allow-code"], capfd)


@pytest.mark.parametrize("options", [
    {"episode_length": 10**400}, {"episode_length": [1]}, {"backend": ESCAPES}, {"randomizer": 3},
    {"policy_observation": {"a": 1}},
])
def test_options_that_no_environment_takes_are_refused_in_one_line(options, run_dir, capfd):
    edited(run_dir, put("env_options", value=options))
    (option,) = options
    for command in ("resume", "evaluate"):
        assert option.replace("_", "-") in refused([command, str(run_dir)], capfd).replace("_", "-")


# What is called.


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module in the current directory that tells when it is imported, and when called."""
    place = tmp_path / "work"
    place.mkdir()
    (place / "trap.py").write_text(textwrap.dedent("""
        import pathlib, os, functools, subprocess
        from os import system
        import jtrust
        pathlib.Path("imported").write_text("")
        twice = functools.partial(functools.partial(system), "touch called")
        kept = []
        class Cart:
            action_size = 1
            def __init__(self, force=1.0):
                pathlib.Path("called").write_text(str(force))
                self.env = jtrust.make_env("brax/fast", episode_length=30)
            def reset(self, key): return self.env.reset(key)
            def step(self, state, action): return self.env.step(state, action)
    """))
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield place
    sys.modules.pop("trap", None)


def named(env, **options):
    def change(config):
        config.update(env=env, env_options=options, episode_length=0)
    return change


def test_a_run_from_elsewhere_calls_nothing_without_the_users_word(trap, run_dir, capfd):
    edited(run_dir, named("trap:Cart", force=3.5))
    for command in ("resume", "evaluate"):
        line = refused([command, str(run_dir), *["--steps", "384"] * (command == "resume")], capfd)
        assert "trap:Cart" in line and '"force": 3.5' in line and "--allow-code" in line
    with pytest.raises(jtrust.BadArgument, match="allow_code=True"):
        jtrust.evaluate(run_dir)
    with pytest.raises(jtrust.BadArgument, match="allow_code=True"):
        jtrust.resume(run_dir)
    assert jtrust.load_policy(run_dir)(jnp.zeros(2)).shape == (1,)  # which calls nothing
    assert not (trap / "imported").exists()
    assert main(["evaluate", str(run_dir), "--episodes", "2", "--allow-code"]) == 0
    assert (trap / "called").read_text() == "3.5"
    # Evaluating changed nothing; a run that was gone on with is the user's own.
    refused(["evaluate", str(run_dir)], capfd)
    jtrust.resume(run_dir, 384, devices=1, allow_code=True)
    assert jtrust.evaluate(run_dir, episodes=2)["step"] == 384


def test_a_run_of_the_users_own_goes_on_and_a_changed_one_does_not(
    trap, tmp_path, capfd, monkeypatch
):
    run = tmp_path / "own"
    env = jtrust.make_env("trap:Cart", force=2.0)
    jtrust.train(env, total_steps=128, run_dir=run, **SMALL)
    assert jtrust.evaluate(run, episodes=2)["step"] == 128
    shutil.move(run, tmp_path / "moved")  # it is the run that is the user's, not its place
    run = tmp_path / "moved"
    assert jtrust.evaluate(run, episodes=2)["step"] == 128
    text = (run / "config.json").read_text()
    assert os.stat(os.environ["XDG_STATE_HOME"] + "/jtrust/key").st_mode & 0o777 == 0o600
    for change in (
        named("trap:Cart", force=2.5), named("trap:twice", force=2.0), put("signature", value=""),
        put("signature", value="0" * 64), put("signature", value="\udcff" * 64),
    ):
        (run / "config.json").write_text(text)
        edited(run, change)
        refused(["evaluate", str(run)], capfd)
    # The code would come out of the run's own directory.
    (run / "config.json").write_text(text)
    shutil.copy("trap.py", run)
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(trap)])
    assert "own directory" in refused(["evaluate", "."], capfd)
    # Another user's key.
    (run / "trap.py").unlink()
    monkeypatch.chdir(trap)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another"))
    refused(["evaluate", str(run)], capfd)


def test_without_a_place_for_a_key_a_run_is_not_signed_and_that_is_said(
    trap, tmp_path, capfd, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    env = jtrust.make_env("trap:Cart")
    with pytest.warns(UserWarning, match="--allow-code"):
        jtrust.train(env, total_steps=128, run_dir=tmp_path / "r", **SMALL)
    assert "--allow-code" in refused(["evaluate", str(tmp_path / "r")], capfd)
    # A key that others can read proves nothing.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    (tmp_path / "jtrust").mkdir()
    (tmp_path / "jtrust" / "key").write_bytes(b"k" * 32)
    os.chmod(tmp_path / "jtrust" / "key", 0o644)
    with pytest.warns(UserWarning, match="--allow-code"):
        jtrust.train(env, total_steps=128, run_dir=tmp_path / "s", **SMALL)
    for run in ("r", "s"):
        assert json.loads((tmp_path / run / "config.json").read_text())["signature"] == ""


@pytest.mark.parametrize("env", [
    "os:system", "subprocess:Popen", "shutil:rmtree", "builtins:exec", "posix:system",
    "os.path:exists", "trap:system", "trap:os.system", "trap:subprocess.Popen", "trap:twice",
    "trap:kept.append", "trap:Cart.__class__", "trap:Cart.__init__.__call__", "trap:pathlib.Path",
])
def test_what_no_environment_comes_from_is_never_called(env, trap, run_dir, capfd):
    edited(run_dir, named(env, command="touch called", args="touch called", path=str(trap)))
    for command in ("resume", "evaluate"):
        refused([command, str(run_dir), "--allow-code"], capfd)
    refused(["train", env, "--env-option", "command=touch called"], capfd)
    assert not (trap / "called").exists() and (trap / "trap.py").exists()
    assert (trap / "imported").exists() == env.startswith("trap")


def test_what_the_user_made_of_pythons_own_is_his(trap):
    with open("trap.py", "a") as file:
        file.write("strong = functools.partial(Cart, force=9.0)\n"
                   "@functools.lru_cache\ndef cached(): return Cart(8.0)\n"
                   "made = Cart.__call__ if hasattr(Cart, '__call__') else None\n")
    assert jtrust.make_env("trap:strong").observation.shape == (2,)
    assert (trap / "called").read_text() == "9.0"
    assert jtrust.make_env("trap:cached").observation.shape == (2,)


# What is read and written.


def checksums(path):
    file = path / "256" / "checksums" / "metadata"
    return file, json.loads(file.read_text())


NAME = "policy.params.mlp.input.kernel"
CLAIMS = [
    ["float32", [10**12], "0"], ["float32", [2, -64], "0"], ["float32", [2.0, 64], "0"],
    ["object", [2, 64], "0"], ["O", [2, 64], "0"], ["float32,O", [2, 64], "0"], ["U9999", [], "0"],
    ["(1000000,1000000)f4", [], "0"], [["float32"], [2, 64], "0"], ["float32", "2", "0"],
    ["float32", [10**400], "0"], ["float32", [1] * 100, "0"], ["float32"], {}, None, "x",
    ["../../x", [2, 64], "0"], ["float32", [2**62], "0"], ["datetime64", [2, 64], "0"],
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda x: str(x)[:40])
def test_checksums_of_what_cannot_be_are_damage_and_nothing_is_made_room_for(
    claim, run_dir, monkeypatch
):
    file, found = checksums(run_dir)
    found["policy"][NAME] = claim
    file.write_text(json.dumps(found))
    sizes = []
    zeros = np.zeros
    monkeypatch.setattr(np, "zeros", lambda shape, *a, **k: (
        sizes.append(np.prod(shape, dtype=float)), zeros(shape, *a, **k)
    )[1])
    with pytest.warns(UserWarning, match="256 is damaged"):
        assert CheckpointReader(run_dir).newest_whole(policy_only=True)[0] == 128
    assert max(sizes, default=0) < 1e6


@pytest.mark.parametrize("text", [
    DEEP, '{"policy": ' + DEEP + "}", "[]", '{"policy": []}', '{"policy": {}, "training": {}}', "",
    '{"policy": {"../../../mine/file": ["float32", [2], "0"]}}', "9" * 5000, "\x1b[2J",
], ids=lambda x: x[:24].encode("unicode_escape").decode())
def test_checksums_that_are_none_are_damage(text, run_dir, outside):
    (run_dir / "256" / "checksums" / "metadata").write_text(text)
    with pytest.warns(UserWarning, match="256 is damaged") as said:
        assert CheckpointReader(run_dir).newest_whole()[0] == 128
    assert all(c.isprintable() for w in said for c in str(w.message))


def test_arrays_are_described_as_their_checksums_say_before_any_is_read(run_dir, monkeypatch):
    # A checkpoint whose arrays are larger on disk than its checksums say.
    shutil.rmtree(run_dir / "256" / "policy")
    _, found = checksums(run_dir)
    large = {name: np.zeros(spec[1], spec[0]) for name, spec in found["policy"].items()}
    large[NAME] = np.zeros((1000, 1000), np.float32)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(run_dir / "256" / "policy", large)
    read = []
    restore = ocp.Checkpointer.restore
    monkeypatch.setattr(ocp.Checkpointer, "restore", lambda self, path, *a, **k: (
        read.append(path), restore(self, path, *a, **k)
    )[1])
    with pytest.warns(UserWarning, match=r"256 is damaged .*1000"):
        assert CheckpointReader(run_dir).newest_whole(policy_only=True)[0] == 128
    assert [path.parent.name for path in read] == ["128"]


def test_a_chunk_larger_than_its_array_is_damage(run_dir):
    # A chunk is what a reader makes room for, however small the array is.
    tensorstore.open({
        "driver": "zarr", "delete_existing": True, "create": True,
        "kvstore": {
            "driver": "ocdbt", "base": f"file://{run_dir / '256' / 'policy'}/", "path": f"{NAME}/",
        },
        "metadata": {"shape": [2, 64], "chunks": [2**20, 2**20], "dtype": "<f4"},
    }).result()
    with pytest.warns(UserWarning, match="256 is damaged .*a chunk of"):
        assert CheckpointReader(run_dir).newest_whole(policy_only=True)[0] == 128


def test_metadata_of_arrays_that_is_hostile_is_damage(run_dir):
    policy = run_dir / "256" / "policy"
    for text in (DEEP, "{}", "[]", '{"tree_metadata": ' + DEEP + "}", "\x00"):
        (policy / "_METADATA").write_text(text)
        with pytest.warns(UserWarning, match="256 is damaged"):
            assert CheckpointReader(run_dir).newest_whole(policy_only=True)[0] == 128


def link(path, target):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    path.symlink_to(target)


@pytest.mark.parametrize("name", [
    "config.json", "metrics.jsonl", "lock", "config.json.tmp", "256", "384", "wandb",
    "mlflow.db", "384.orbax-checkpoint-tmp-0",
])
def test_a_link_that_leads_outside_is_refused(name, run_dir, outside, capfd):
    target = outside if name[0].isdigit() or name == "wandb" else outside / "file"
    link(run_dir / name, target)
    for command in ("resume", "evaluate"):
        assert "symbolic link" in refused([command, str(run_dir)], capfd)
    with pytest.raises(jtrust.BadArgument, match="symbolic link"):
        jtrust.load_policy(run_dir)
    with pytest.raises(jtrust.BadArgument):
        RunDirectory.create(run_dir)


@pytest.mark.parametrize("name", ["policy", "checksums/metadata", "policy/manifest.ocdbt"])
def test_a_link_inside_a_checkpoint_is_damage(name, run_dir, tmp_path):
    shutil.move(run_dir / "256" / name, tmp_path / "elsewhere")  # whole, and not here
    (run_dir / "256" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="256 is damaged"):
        assert CheckpointReader(run_dir).newest_whole()[0] == 128


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "lock"])
def test_a_pipe_is_not_waited_on(name, run_dir, capfd):
    (run_dir / name).unlink()
    os.mkfifo(run_dir / name)
    said = refused(["resume", str(run_dir), "--steps", "384", "--devices", "1"], capfd)
    assert str(run_dir) in said


def test_a_file_without_an_end_is_not_read_to_it(run_dir, capfd):
    os.truncate(run_dir / "config.json", 2**40)  # takes no room on the disk
    assert "config.json" in refused(["evaluate", str(run_dir)], capfd)
    os.truncate(run_dir / "256" / "checksums" / "metadata", 2**40)
    with pytest.warns(UserWarning, match="256 is damaged"):
        assert CheckpointReader(run_dir).newest_whole()[0] == 128


@pytest.mark.parametrize("line", [
    DEEP, '{"iteration": ' + DEEP + "}", '{"iteration": "x"}', '{"iteration": null}', "[]", "\x00",
    '{"iteration": ' + "9" * 5000 + "}", "x" * 3_000_000,
], ids=lambda x: x[:20].encode("unicode_escape").decode())
def test_metrics_that_are_none_are_cut(line, run_dir):
    whole = (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_bytes(whole[0] + line.encode() + b"\n" + whole[1])
    RunDirectory(run_dir).cut_metrics(2)
    assert (run_dir / "metrics.jsonl").read_bytes() == whole[0]


def test_who_holds_a_directory_is_told_in_plain_letters(run_dir, capfd):
    holder = RunDirectory(run_dir)
    holder.lock()
    (run_dir / "lock").write_text(ESCAPES + "x" * 10_000)
    line = refused(["resume", str(run_dir), "--steps", "384", "--devices", "1"], capfd)
    assert "in use by" in line and r"\x1b" in line
    holder.unlock()


def test_directories_that_are_no_steps_are_passed_over(run_dir):
    for name in ("9" * 200, "٥١٢", "0256", "-5", "1e9", "512.damaged-1", ESCAPES.replace("/", "")):
        (run_dir / name).mkdir()
    (run_dir / "512").write_text("a file")
    assert CheckpointReader(run_dir).steps() == [0, 128, 256]
    assert jtrust.load_policy(run_dir)(jnp.zeros(2)).shape == (1,)
