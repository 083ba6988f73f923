"""Paths that users give: what will not do is told at once, and leaves nothing."""

import os
import sys
from pathlib import Path, PurePosixPath

import pytest

import jtrust
from jtrust.cli import main
from jtrust.paths import NotPlain, open_plain, read_plain
from jtrust.profiling import profile
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.compilation_cache import use_compilation_cache

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=8, total_steps=64, devices=1)


class Remote(os.PathLike):
    """As the paths of etils and fsspec say themselves."""

    def __fspath__(self):
        return "gs://bucket/x"


NO_PATHS = [
    "", "  ", "gs://bucket/x", "s3://bucket/x", "file:///tmp/x", "memory://x", "http:/x", Remote(),
    PurePosixPath("gs://bucket"), b"bytes", 3, 3.5, True, ["x"], "nul\0in it", "x" * 5000,
    "\udc80\ud800", "~nobody-of-this-name/x", object(),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NO_PATHS, ids=lambda x: repr(x)[:20])
def test_what_is_no_path_is_refused_wherever_one_is_taken(path, here, point, monkeypatch):
    for module in ("jtrust.runs.run", "jtrust.profiling.profile"):
        monkeypatch.setattr(sys.modules[module], "make_trainer", None)  # nothing is made before
    for name, call in (
        ("run_dir", lambda: jtrust.train(point, run_dir=path, **SMALL)),
        ("RUN_DIR", lambda: jtrust.resume(path)),
        ("RUN_DIR", lambda: jtrust.evaluate(path)),
        ("RUN_DIR", lambda: jtrust.load_policy(path)),
        ("trace_dir", lambda: profile(point, trace_dir=path)),
        ("compilation_cache", lambda: use_compilation_cache(path)),
    ):
        with pytest.raises(jtrust.BadArgument) as caught:
            call()
        assert caught.value.name == name and "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [jtrust.resume, jtrust.evaluate, jtrust.load_policy])
def test_none_is_no_run(call, here):
    with pytest.raises(jtrust.BadArgument, match="RUN_DIR=None"):
        call(None)


@pytest.mark.parametrize("path", ["", "gs://bucket/x", "x" * 5000, "~nobody-of-this-name"])
@pytest.mark.parametrize(("command", "name"), [
    (["train", "brax/fast", "--run-dir"], "--run-dir"), (["resume"], "RUN_DIR"),
    (["evaluate"], "RUN_DIR"), (["profile", "fast", "--trace-dir"], "--trace-dir"),
    (["train", "brax/fast", "--compilation-cache"], "--compilation-cache"),
])
def test_the_command_line_refuses_them_before_it_makes_anything(
    command, name, path, here, capfd, monkeypatch
):
    monkeypatch.setattr("jtrust.environments.make_env", None)
    assert main([*command, path]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"jtrust: {name} ") and len(line) < 600


def test_the_home_directory_is_meant_by_its_sign(tmp_path, point, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    result = jtrust.train(point, run_dir="~/a run", **SMALL)
    assert result.run_dir == str(tmp_path / "home" / "a run")
    assert jtrust.load_policy("~/a run").action == result.policy.action
    assert jtrust.load_policy(Path("~") / "a run").action == result.policy.action
    assert list((tmp_path / "work").iterdir()) == []


def test_a_run_goes_into_the_current_directory_and_through_a_link(tmp_path, point, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    jtrust.train(point, run_dir=".", **SMALL)
    assert CheckpointReader(tmp_path / "here").steps() == [0, 64]
    assert Path("config.json").exists()
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    jtrust.train(point, run_dir=tmp_path / "link", **SMALL)
    assert CheckpointReader(tmp_path / "there").steps() == [0, 64]
    (tmp_path / "up" / "down").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "up" / "down")
    with pytest.raises(jtrust.BadArgument, match="holds a run"):
        jtrust.train(point, run_dir=tmp_path / "link", **SMALL)


def test_only_plain_files_are_opened_and_only_so_much_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_plain(tmp_path / "file", 100) == b"x" * 100
    with pytest.raises(NotPlain, match="larger"):
        read_plain(tmp_path / "file", 99)
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "nowhere").symlink_to("none")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "nowhere", "pipe"):
        with pytest.raises(NotPlain):
            read_plain(tmp_path / name, 100)
    with pytest.raises(NotPlain):
        open_plain(tmp_path / "nowhere", os.O_WRONLY | os.O_CREAT)
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileNotFoundError):
        read_plain(tmp_path / "none", 100)
