"""The command line: what it prints, its exit statuses, and its answers to bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from jtrust.cli import main

pytestmark = pytest.mark.slow

TINY = ["--num-envs", "16", "--unroll-length", "8", "--devices", "1", "--episode-length", "20"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "brax/fast", "--steps", "384", "--run-dir", str(path), *TINY]) == 0
    return path


def test_training_says_how_it_goes_and_where_it_ended(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    arguments = ["train", "fast", "--algorithm", "ppo", "--clip", "0.3", "--seed", "4", *TINY]
    assert main([*arguments, "--steps", "256"]) == 0
    captured = capfd.readouterr()
    path = "checkpoints/brax-fast-ppo-seed4"
    assert captured.out.startswith("done: 256 steps") and path in captured.out
    for word in ("steps 256", "steps/s", "return", "KL 0.", "of 0.05", "time left"):
        assert word in captured.err
    config = json.loads((tmp_path / path / "config.json").read_text())
    assert config["hyperparameters"]["clip"] == 0.3
    # The same again goes beside it, not over it.
    assert main([*arguments, "--steps", "128"]) == 0
    assert (tmp_path / f"{path}-2" / "config.json").exists()


@pytest.mark.nightly
def test_a_number_of_environments_that_nobody_asked_for_is_said(tmp_path, monkeypatch, capfd):
    arguments = ["train", "fast", "--unroll-length", "2", "--devices", "1", "--steps", "128"]
    assert main([*arguments, "--run-dir", str(tmp_path / "cpu")]) == 0
    assert "num_envs" not in capfd.readouterr().err
    monkeypatch.setattr("jtrust.training.build.default_num_envs", lambda devices: 96)
    assert main([*arguments, "--run-dir", str(tmp_path / "accelerator")]) == 0
    assert "num_envs 96" in capfd.readouterr().err
    assert main([*arguments, "--run-dir", str(tmp_path / "given"), "--num-envs", "96"]) == 0
    assert "num_envs" not in capfd.readouterr().err


@pytest.mark.nightly
def test_actions_in_bins_are_trained_resumed_and_evaluated(tmp_path, capfd):
    run = str(tmp_path / "run")
    arguments = ["train", "brax/fast", "--action-bins", "5", "--steps", "128", "--run-dir", run]
    assert main([*arguments, *TINY]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["action"] == {"kind": "bins", "size": 1, "bins": 5, "low": -1.0, "high": 1.0}
    assert main(["resume", run, "--steps", "256", "--devices", "1"]) == 0
    capfd.readouterr()
    assert main(["evaluate", run, "--episodes", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["step"] == 256


def test_resume_goes_on_and_then_has_nothing_left_to_do(run_dir, capfd):
    assert main(["resume", str(run_dir), "--steps", "640", "--devices", "1"]) == 0
    captured = capfd.readouterr()
    assert "going on from step 384" in captured.err and "640 steps" in captured.out
    assert main(["resume", str(run_dir), "--devices", "1"]) == 0
    assert "nothing left to do" in capfd.readouterr().out
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [128, 256, 384, 512, 640]


def test_evaluate_prints_one_json_object_and_nothing_else(run_dir):
    process = subprocess.run(
        [sys.executable, "-m", "jtrust", "evaluate", str(run_dir), "--episodes", "3", "--json",
         "--step", "0"],
        capture_output=True, text=True, check=True,
    )
    found = json.loads(process.stdout)
    assert found["env"] == "brax/fast" and found["episodes"] == 3 and found["step"] == 0
    assert process.stdout.count("\n") == 1


def test_evaluate_without_json_is_a_sentence(run_dir, capfd):
    assert main(["evaluate", str(run_dir), "--episodes", "2", "--stochastic"]) == 0
    assert re.match(r"trpo on brax/fast after \d+ steps: return .* over 2 episodes",
                    capfd.readouterr().out)


def test_envs_lists_names_that_train_takes(capfd):
    assert main(["envs"]) == 0
    listed = [line.split()[0] for line in capfd.readouterr().out.splitlines()]
    assert "brax/ant" in listed and "brax/swimmer" in listed and len(listed) >= 12


@pytest.mark.parametrize("command", [
    [], ["train"], ["sweep"], ["resume"], ["evaluate"], ["compare"], ["report"], ["watch"],
    ["render"], ["export"], ["envs"],
])
def test_help_is_there_for_each_command(command, capfd):
    try:
        assert main([*command, "--help"]) == 0
    except SystemExit as stop:
        assert not stop.code
    assert "usage: jtrust" in capfd.readouterr().out


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_iteration_in_hand_with_a_checkpoint(tmp_path, number, status):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "train", "brax/fast", "--steps", "1000000000",
         "--run-dir", str(path), "--checkpoint-every", "1000000", *TINY],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stderr.readline().startswith("steps 128")  # compiled and under way
    process.send_signal(number)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == status
    assert f"jtrust resume {path}" in out
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    assert (path / str(rows[-1]["step"]) / "_CHECKPOINT_METADATA").exists()
    assert rows[-1]["step"] > 0


def test_a_signal_while_the_program_compiles_leaves_a_run_that_goes_on(tmp_path):
    path = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "jtrust", "train", "brax/fast", "--steps", "1000000000",
         "--run-dir", str(path), *TINY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    while not list(tmp_path.glob(".run.starting-*/lock")):  # under way, not yet a run
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143 and f"jtrust resume {path}" in out and "Traceback" not in err
    assert main(["resume", str(path), "--steps", "512", "--devices", "1"]) == 0


def test_a_second_signal_stops_at_once():
    code = (
        "import time\nfrom jtrust.runs.signals import StopRequest\n"
        "with StopRequest() as stop:\n    print('ready', flush=True)\n"
        "    while True:\n        time.sleep(0.1)\n"
        "        if stop.number: print('noted', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "noted\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "the last checkpoint is whole" in err


@pytest.mark.nightly
def test_a_process_of_its_own_uses_its_cores_and_the_compilation_cache(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    sizes = []
    for name in ("first", "second"):
        process = subprocess.run(
            [sys.executable, "-m", "jtrust", "train", "brax/fast", "--num-envs", "128",
             "--unroll-length", "4", "--steps", "512", "--run-dir", str(tmp_path / name),
             "--compilation-cache", str(tmp_path / "cache")],
            capture_output=True, text=True, env=environment, check=True,
        )
        assert "Traceback" not in process.stderr
        sizes.append(sum(p.name.endswith("-cache") for p in (tmp_path / "cache").iterdir()))
        devices = json.loads((tmp_path / name / "config.json").read_text())["devices"]
        assert devices == min(2, len(os.sched_getaffinity(0)))  # 64 environments or more each
    assert sizes[0] == sizes[1] > 0


def test_making_an_environment_leaves_no_files(tmp_path):
    subprocess.run(
        [sys.executable, "-c", "import jtrust; jtrust.make_env('brax/ant')"], cwd=tmp_path,
        check=True, capture_output=True,
    )
    assert list(tmp_path.iterdir()) == []


BAD = [
    (["train", "fast", "--num-envs", "0"], "--num-envs 0"),
    (["train", "fast", "--num-envs", "many"], "--num-envs many"),
    (["train", "fast", "--num-envs", "12", "--devices", "8"], "--num-envs 12"),
    (["train", "fast", "--devices", "99"], "--devices 99"),
    (["train", "fast", "--steps", "-5"], "--steps -5"),
    (["train", "fast", "--steps", "1.5"], "--steps 1.5"),
    (["train", "fast", "--unroll-length", "0"], "--unroll-length 0"),
    (["train", "fast", "--seed", "-1"], "--seed -1"),
    (["train", "fast", "--checkpoint-every", "0"], "--checkpoint-every 0"),
    (["train", "fast", "--episode-length", "0"], "--episode-length 0"),
    (["train", "fast", "--max-kl", "nan"], "--max-kl nan"),
    (["train", "fast", "--max-kl", "inf"], "--max-kl inf"),
    (["train", "fast", "--max-kl", "0"], "--max-kl 0"),
    (["train", "fast", "--damping", "-1"], "--damping -1"),
    (["train", "fast", "--discount", "1.01"], "--discount 1.01"),
    (["train", "fast", "--cg-iterations", "0"], "--cg-iterations 0"),
    (["train", "fast", "--value-minibatches", "7", *TINY], "--value-minibatches 7"),
    (["train", "fast", "--algorithm", "ppo", "--minibatches", "48", *TINY], "--minibatches 48"),
    (["train", "fast", "--algorithm", "ppo", "--clip", "-0.1"], "--clip -0.1"),
    (["train", "fast", "--algorithm", "ppo-kl", "--target-kl", "1"], "--target-kl 1.0"),
    (["train", "fast", "--algorithm", "trppo"], "--algorithm trppo"),
    (["train", "fast", "--algorithm", "ppo", "--damping", "1"], "--damping"),
    (["train", "fast", "--activation", "tanhh"], "--activation tanhh"),
    (["train", "fast", "--policy-layers", "0"], "--policy-layers 0"),
    (["train", "fast", "--initialization", "he"], "--initialization he"),
    (["train", "fast", "--action-bins", "1"], "--action-bins 1"),
    (["train", "fast", "--action-bins", "-5"], "--action-bins -5"),
    (["train", "fast", "--action-bins", "many"], "--action-bins many"),
    (["train", "fast", "--action-bins", "99999999"], "--action-bins 99999999"),
    (["train", "fast", "--backend", "mjx"], "--backend mjx"),
    (["train", "ant", "--backend", "sprong"], "--backend sprong"),
    (["train", "antt"], "ENV antt"),
    (["train", "brx/ant"], "ENV brx/ant"),
    (["train"], "ENV"),
    (["train", "fast", "--colour", "red"], "--colour"),
    (["resume", "{tmp}"], "RUN_DIR {tmp}"),
    (["resume", "{tmp}/none"], "RUN_DIR {tmp}/none"),
    (["resume", "{run}", "--steps", "1"], "--steps 1"),
    (["evaluate", "{tmp}"], "RUN_DIR {tmp}"),
    (["evaluate", "{run}", "--episodes", "0"], "--episodes 0"),
    (["evaluate", "{run}", "--step", "77"], "--step 77"),
    (["train", "fast", "--run-dir", "{run}"], "--run-dir {run}"),
    (["train", "fast", "--run-dir", "{file}"], "--run-dir {file}"),
    (["train", "fast", "--run-dir", "/proc/no/such"], "--run-dir /proc/no/such"),
    (["train", "fast", "--num-envs", "-8"], "--num-envs -8"),
    (["train", "fast", "--num-envs", "99999999999"], "--num-envs 99999999999"),
    (["train", "fast", "--num-envs", "1e3"], "--num-envs 1e3"),
    (["train", "fast", "--unroll-length", "nan"], "--unroll-length nan"),
    (["train", "fast", "--steps", "99999999999999999999"], "--steps 99999999999999999999"),
    (["train", "fast", "--seed", "1e3"], "--seed 1e3"),
    (["train", "fast", "--seed", "4294967296"], "--seed 4294967296"),
    (["train", "fast", "--devices", "0"], "--devices 0"),
    (["train", "fast", "--keep-checkpoints", "-1"], "--keep-checkpoints -1"),
    (["train", "fast", "--max-kl", "small"], "--max-kl small"),
    (["train", "fast", "--max-kl", "1e300"], "--max-kl 1e+300"),
    (["train", "fast", "--gae-lambda", "-0.5"], "--gae-lambda -0.5"),
    (["train", "fast", "--entropy-cost", "inf"], "--entropy-cost inf"),
    (["train", "fast", "--value-learning-rate", "0"], "--value-learning-rate 0.0"),
    (["train", "fast", "--value-epochs", "0"], "--value-epochs 0"),
    (["train", "fast", "--fisher-stride", "0"], "--fisher-stride 0"),
    (["train", "fast", "--backtrack-factor", "1"], "--backtrack-factor 1.0"),
    (["train", "fast", "--max-backtracks", "0"], "--max-backtracks 0"),
    (["train", "fast", "--initial-std", "-1"], "--initial-std -1.0"),
    (["train", "fast", "--min-std", "2"], "--min-std 2.0"),
    (["train", "fast", "--algorithm", "ppo", "--epochs", "0"], "--epochs 0"),
    (["train", "fast", "--algorithm", "ppo", "--learning-rate", "nan"], "--learning-rate nan"),
    (["train", "fast", "--algorithm", "ppo", "--max-gradient-norm", "0"], "--max-gradient-norm"),
    (["train", "fast", "--algorithm", "ppo-kl", "--kl-coefficient", "0"], "--kl-coefficient 0.0"),
    (["train", "fast", "--algorithm"], "--algorithm"),
    (["train", "fast", "ant"], "ant"),
    (["train", ""], "ENV"),
    (["train", "fast", "--compilation-cache", "{file}/x"], "--compilation-cache {file}/x"),
    (["resume", "{file}"], "RUN_DIR {file}"),
    (["resume", "{run}", "--steps", "0"], "--steps 0"),
    (["resume", "{run}", "--devices", "99"], "--devices 99"),
    (["resume"], "RUN_DIR"),
    (["evaluate", "{run}", "--seed", "-1"], "--seed -1"),
    (["evaluate", "{run}", "--step", "-1"], "--step -1"),
    (["evaluate", "{run}", "--episodes", "9999999999"], "--episodes 9999999999"),
    (["trian", "fast"], "COMMAND trian"),
    (["envs", "all"], "all"),
]


@pytest.mark.parametrize(("arguments", "names"), BAD, ids=lambda x: " ".join(x)
                         if isinstance(x, list) else "")
def test_bad_input_is_answered_with_status_2_and_one_line(
    arguments, names, run_dir, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    places = {"tmp": str(tmp_path), "run": str(run_dir), "file": str(tmp_path / "file")}
    before = {p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"}
    assert main([a.format(**places) for a in arguments]) == 2
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("jtrust: ") and names.format(**places) in line
    assert before == {
        p: p.read_bytes() for p in run_dir.rglob("*") if p.is_file() and p.name != "lock"
    }
    assert (tmp_path / "file").read_text() == "mine"
    assert not (tmp_path / "checkpoints").exists()
