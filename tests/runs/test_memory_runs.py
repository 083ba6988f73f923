"""Runs with memory from the command line to a file for other programs."""

import json

import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.deploy.recording import record
from jtrust.runs.evaluate import environment_of, load_with_config

pytestmark = pytest.mark.slow

ENV = "tests.conftest:Point"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "run"
    assert main([
        "train", ENV, "--memory", "lstm", "--memory-size", "6", "--policy-layers", "8",
        "--value-layers", "8", "--num-envs", "8", "--unroll-length", "16", "--steps", "512",
        "--devices", "1", "--episode-length", "40", "--run-dir", str(path),
        "--evaluate-every", "4",
    ]) == 0
    return path


def test_a_run_with_memory_is_evaluated_recorded_and_exported(run_dir, tmp_path, capfd):
    policy, config, step = load_with_config(run_dir)
    assert step == 512 and config.network["memory"] == "lstm"
    capfd.readouterr()
    assert main(["evaluate", str(run_dir), "--episodes", "32", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    rows = [json.loads(x) for x in (run_dir / "metrics.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(told["return_mean"], rows[-1]["evaluation/return"], rtol=1e-5)
    # The same episodes, by the policy's own steps.
    environment = environment_of(config, run_dir)
    found = record(policy, environment, 32, observe=True)
    np.testing.assert_allclose(np.mean(found.returns), told["return_mean"], rtol=1e-5)
    carry = policy.initial_carry((32,))
    for t in range(5):
        action, carry = policy.act(carry, found.observations[t])
        going = found.lengths > t
        np.testing.assert_allclose(np.asarray(action)[going], found.actions[t][going], atol=1e-5)
    assert main(["export", str(run_dir), "--format", "onnx", "--output", str(tmp_path / "p.onnx")]
                ) == 0
    contract = json.loads((tmp_path / "p.onnx.json").read_text())
    carries = {x["name"]: x["shape"] for x in contract["inputs"][1:]}
    # The cell's two, the observation before, and whether there is one.
    assert carries == {f"carry_{i}": ["batch", size] for i, size in enumerate((6, 6, 2, 1))}
    assert contract["parity"]["largest_difference"] < 1e-5


def test_what_a_policy_with_memory_cannot_do_is_told_in_one_line(run_dir, capfd, tmp_path):
    policy = jtrust.load_policy(run_dir)
    with pytest.raises(jtrust.BadArgument, match=r"carry = policy.initial_carry\(batch_shape\)"):
        policy(np.zeros(2))
    for carry in ((), policy.initial_carry((3,)), (np.zeros(6),)):
        with pytest.raises(jtrust.BadArgument, match="carry="):
            policy.act(carry, np.zeros(2))
    for arguments, words in [
        (["export", str(run_dir), "--format", "brax", "--output", str(tmp_path / "p")], "memory"),
        (["train", ENV, "--memory", "foo", "--num-envs", "8"], "--memory foo: unknown memory"),
        (["train", ENV, "--memory", "gru", "--memory-size", "0"], "--memory-size 0"),
        (["train", ENV, "--memory", "gru", "--initialize-from", str(run_dir), "--num-envs", "8",
          "--devices", "1", "--steps", "8", "--run-dir", str(tmp_path / "r")],
         "--initialize-from"),
        (["train", ENV, "--memory", "gru", "--algorithm", "ppo", "--minibatches", "3",
          "--num-envs", "8"], "--minibatches 3: must divide the environments"),
    ]:
        capfd.readouterr()
        assert main(arguments) == 2
        said = capfd.readouterr().err
        assert said.count("\n") == 1 and words in said, said


def test_a_policy_without_memory_acts_with_an_empty_carry():
    policy = jtrust.load_policy("checkpoints/pretrained/inverted_pendulum")
    assert policy.initial_carry((4,)) == () and not policy.has_memory
    observation = np.linspace(-0.1, 0.1, 16).reshape(4, 4)
    action, carry = policy.act((), observation)
    np.testing.assert_array_equal(action, policy(observation))
    assert carry == ()
