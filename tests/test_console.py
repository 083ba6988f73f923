"""What the command line speaks to: closed and broken streams, and encodings without the letters."""

import io
import os
import subprocess
import sys

import pytest

import jtrust
from jtrust import startup
from jtrust.cli import USAGE, main

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=8, total_steps=64, devices=1)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("console") / "läufe"
    jtrust.train(jtrust.make_env("brax/fast", episode_length=20), run_dir=path, **SMALL)
    return path


def ascii_streams(monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), "ascii", errors="strict") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    return lambda: [s.buffer.getvalue().decode("ascii") for s in streams]


def test_letters_that_cannot_be_encoded_are_written_otherwise(run_dir, monkeypatch):
    said = ascii_streams(monkeypatch)
    assert main(["evaluate", str(run_dir), "--episodes", "2"]) == 0
    assert " +/- " in said()[0] and "over 2 episodes" in said()[0]
    assert main(["resume", str(run_dir), "--devices", "1"]) == 0
    assert r"l\xe4ufe" in said()[0]
    assert main(["resume", str(run_dir / "none")]) == 2
    assert r"l\xe4ufe/none" in said()[1]
    assert main(["train", "fast", "--run-dir", str(run_dir)]) == 2
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "--unroll-length" in said()[0]
    assert main(["envs"]) == 0 and "brax/ant" in said()[0]


class Broken(io.StringIO):
    """A stream whose reader has gone, or that has another trouble."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error

    flush = close = lambda self: None


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "I/O"),
                                   ValueError("I/O operation on closed file"), None], ids=repr)
def test_training_goes_on_where_nobody_hears_of_it(error, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stderr", error and Broken(error))
    arguments = ["train", "fast", "--num-envs", "8", "--unroll-length", "8", "--steps", "128",
                 "--devices", "1"]
    assert main([*arguments, "--run-dir", str(tmp_path / "r")]) == 0
    assert (tmp_path / "r" / "128").is_dir()


def test_a_pipe_that_nobody_reads_is_no_failure_and_a_full_disk_is_one(run_dir, monkeypatch, capfd):
    monkeypatch.setattr(sys, "stdout", Broken(BrokenPipeError(32, "Broken pipe")))
    assert main(["envs"]) == 0
    assert main(["evaluate", str(run_dir), "--episodes", "2"]) == 0
    monkeypatch.setattr(sys, "stdout", Broken(OSError(28, "No space left on device")))
    assert main(["--version"]) == 1
    assert "No space left" in capfd.readouterr().err


@pytest.mark.parametrize(("command", "streams", "lines"), [
    ("envs", "| head -1", 1), ("--help", "2>&-", USAGE.count("\n")), ("--help", ">&- 2>&- <&-", 0),
    ("no-such-command", "2>&1 | true", 0),
])
def test_a_shells_streams_closed_or_cut_are_quiet(command, streams, lines):
    process = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m jtrust {command} {streams}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=300,
    )
    assert process.returncode == (2 if command == "no-such-command" else 0)
    assert process.stderr == "" and len(process.stdout.splitlines()) == lines


def test_files_of_a_run_do_not_take_the_place_of_closed_streams(tmp_path):
    # What a library writes to standard error would otherwise go into the first file opened.
    code = (
        "import os, jtrust.cli, jtrust.cli.envs\n"
        "def both(args):\n"
        f"    with open({str(tmp_path / 'file')!r}, 'wb', 0) as f:\n"
        "        os.write(2, b'noise'); f.write(b'mine')\n"
        "    return 0\n"
        "jtrust.cli.envs.run = both\n"
        "raise SystemExit(jtrust.cli.main(['envs']))\n"
    )
    process = subprocess.run(["bash", "-c", f'exec {sys.executable} -c "$CODE" 2>&- >&- <&-'],
                             env={**os.environ, "CODE": code}, timeout=300)
    assert process.returncode == 0 and (tmp_path / "file").read_bytes() == b"mine"


def test_a_platform_that_is_not_here_is_named_in_one_line(run_dir, tmp_path):
    commands = [
        ["train", "fast"], ["train", "gymnax/CartPole-v1"], ["resume", str(run_dir)],
        ["evaluate", str(run_dir)], ["profile", "fast"], ["envs"],
    ]
    code = (
        "import sys, jtrust\nfrom jtrust.cli import main\n"
        f"for command in {commands!r}:\n    print(main(command), flush=True)\n"
        "for call in (jtrust.load_policy, jtrust.make_env, jtrust.evaluate, jtrust.resume):\n"
        "    try:\n        call(sys.argv[1])\n"
        "    except jtrust.BadArgument as error:\n        print(error.name)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(run_dir)], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "JAX_PLATFORMS": "cudda"}, timeout=300,
    )
    assert process.stdout.split() == ["2"] * 6 + ["JAX_PLATFORMS"] * 4, process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 6
    assert all(x.startswith("jtrust: JAX_PLATFORMS cudda: ") for x in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_platform_that_fails_without_a_word_is_named_too(monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setattr(startup.jax, "devices", fail)
    startup.check_platform()  # the CPU, or no choice, is not tried
    monkeypatch.setattr(type(startup.jax.config), "jax_platforms", "cuda", raising=False)
    with pytest.raises(jtrust.BadArgument, match="JAX_PLATFORMS='cuda'") as caught:
        startup.check_platform()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("env", "names", "not_names"), [
    ("tests.conftest:Pont", "Point", "jax"), ("cart.make", "choose from", "gymnax"),
    ("cart/make", "MODULE:CALLABLE", "brax/ant"), ("brx/ant", "brax/ant", "walker2d"),
    ("playgruond/CheetahRun", "playground/CheetahRun", "Cartpole"),
    ("jtrust.environments.base:descrbe", "describe", "Mapping"),
])
def test_a_misspelt_environment_is_answered_by_the_nearest_few(env, names, not_names, capfd):
    assert main(["train", env]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("jtrust: ENV ") and names in line and not_names not in line
    assert len(line) < 400
