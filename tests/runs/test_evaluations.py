"""Evaluation while a run trains, the best policy kept, and runs that start from another."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.runs.checkpoints import CheckpointReader

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=16, devices=1)
STEPS = 128 * 10



def train(point, run_dir, **others):
    arguments = dict(total_steps=STEPS, seed=2, checkpoint_every=4, **SMALL)
    return jtrust.train(point, jtrust.TRPO(max_kl=0.1), run_dir=run_dir, **arguments | others)


@pytest.fixture(scope="module")
def evaluated(point, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("evaluated") / "run"
    return run_dir, train(point, run_dir, evaluate_every=3, keep_best=True)


def rows(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_is_to_the_bit_what_it_is_without_evaluations(evaluated, point, tmp_path):
    _, result = evaluated
    without = train(point, tmp_path / "without")
    for ours, theirs in zip(
        jax.tree.leaves(jax.device_get(result.state)),
        jax.tree.leaves(jax.device_get(without.state)), strict=True,
    ):
        if not jax.numpy.issubdtype(ours.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(ours, theirs)
    for key, value in without.metrics.items():
        if not key.startswith("time/"):
            np.testing.assert_array_equal(result.metrics[key], value)
    assert set(result.metrics) - set(without.metrics) == {
        "evaluation/return", "evaluation/length",
    }


def test_rows_are_what_evaluate_finds(evaluated, point):
    run_dir, _ = evaluated
    found = rows(run_dir)
    assert [r["iteration"] for r in found if r["evaluation/return"] is not None] == [3, 6, 9, 10]
    last = jtrust.evaluate(run_dir, episodes=32, env=point)
    assert last["return_mean"] == pytest.approx(found[-1]["evaluation/return"], rel=1e-5)
    assert last["length_mean"] == pytest.approx(found[-1]["evaluation/length"], rel=1e-5)


def test_the_best_is_kept_and_taken(evaluated, point, capsys):
    run_dir, _ = evaluated
    returns = {r["step"]: r["evaluation/return"] for r in rows(run_dir)}
    best = max((s for s, r in returns.items() if r is not None), key=lambda s: returns[s])
    assert CheckpointReader(run_dir / "best").steps() == [best]
    found = jtrust.evaluate(run_dir, step="best", episodes=32, env=point)
    assert found["step"] == best
    assert found["return_mean"] == pytest.approx(returns[best], rel=1e-5)
    assert main(["evaluate", str(run_dir), "--best", "--step", "3"]) == 2
    assert "--step 3 says another" in capsys.readouterr().err


class Killed(Exception):
    """Stands for a process that ends in the middle."""


@pytest.mark.parametrize("at", [4, 8, 10])
def test_a_run_that_was_cut_off_keeps_the_same_best(evaluated, point, tmp_path, at):
    def fail(info):
        if info.iteration == at:
            raise Killed

    run_dir = tmp_path / "cut"
    with pytest.raises(Killed):
        train(point, run_dir, evaluate_every=3, keep_best=True, sinks=[fail])
    jtrust.resume(run_dir, env=point, devices=1)
    whole = evaluated[0]
    steps = CheckpointReader(whole / "best").steps()
    assert CheckpointReader(run_dir / "best").steps() == steps
    ours, theirs = (CheckpointReader(d / "best").read(steps[0]) for d in (run_dir, whole))
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
    for ours, theirs in zip(rows(run_dir), rows(whole), strict=True):
        assert ours["evaluation/return"] == theirs["evaluation/return"]


def test_a_run_ends_once_it_is_good_enough(evaluated, point, tmp_path):
    returns = [r["evaluation/return"] for r in rows(evaluated[0])]
    result = train(point, tmp_path / "enough", evaluate_every=3, stop_at=returns[2])
    found = result.metrics["evaluation/return"]
    assert len(found) == 5  # two more are under way when the third is looked at
    whole = train(point, tmp_path / "never", evaluate_every=3, stop_at=1e9)
    assert len(whole.metrics["step"]) == 10


def test_a_run_starts_from_another(evaluated, point, tmp_path):
    lines = []

    class Heard:
        def __init__(self, *_): ...

        def note(self, text):
            lines.append(text)

        def update(self, row): ...

        def close(self): ...

    run_dir, _ = evaluated
    best = jtrust.load_policy(run_dir, "best")
    train(point, tmp_path / "from", initialize_from=run_dir, make_progress=Heard)
    observation = np.linspace(-1, 1, 8, dtype=np.float32).reshape(4, 2)
    first = jtrust.load_policy(tmp_path / "from", 0)
    np.testing.assert_array_equal(first(observation), best(observation))
    assert any("starts from the policy, values and normaliser" in line for line in lines)
    began = CheckpointReader(tmp_path / "from").read(0)
    theirs = CheckpointReader(run_dir / "best").newest_whole(None)[1]
    for name, value in began.items():
        taken = name.split(".")[0] in (
            "policy", "value", "observation_statistics", "target_statistics"
        )
        if taken:
            np.testing.assert_array_equal(value, theirs[name])
    assert began["iteration"] == 0
    lines.clear()
    train(
        point, tmp_path / "narrow", initialize_from=run_dir, make_progress=Heard,
        network=jtrust.NetworkConfig(value_layers=(8,)),
    )
    assert any("values begin anew" in line for line in lines)
    config = json.loads((tmp_path / "narrow" / "config.json").read_text())
    assert config["initialize_from"] == str(run_dir)


@pytest.mark.nightly
def test_a_run_starts_from_a_checkpoint_of_braxs_ppo(point, tmp_path):
    from brax.training.acme import running_statistics, specs
    from brax.training.agents.ppo import checkpoint, networks

    factory = functools.partial(
        networks.make_ppo_networks, policy_hidden_layer_sizes=(16, 8),
        preprocess_observations_fn=running_statistics.normalize,
    )
    network = factory(2, 1)
    statistics = running_statistics.update(
        running_statistics.init_state(specs.Array((2,), jax.numpy.float32)),
        3.0 * jax.random.normal(jax.random.key(0), (64, 2)) + 1.0,
    )
    params = (
        statistics, network.policy_network.init(jax.random.key(1)),
        network.value_network.init(jax.random.key(2)),
    )
    plain = functools.partial(networks.make_ppo_networks, policy_hidden_layer_sizes=(16, 8))
    checkpoint.save(
        tmp_path / "brax", 2048, params, checkpoint.network_config(2, 1, True, plain)
    )
    shape = dict(policy_layers=(16, 8), squash=True)
    train(
        point, tmp_path / "from", total_steps=128, initialize_from=tmp_path / "brax",
        network=jtrust.NetworkConfig(activation="swish", **shape),
    )
    theirs = networks.make_inference_fn(network)(params[:2], deterministic=True)
    observation = np.random.default_rng(0).normal(1, 3, (20, 2)).astype(np.float32)
    np.testing.assert_allclose(
        jtrust.load_policy(tmp_path / "from", 0)(observation),
        theirs(observation, jax.random.key(0))[0], atol=2e-6,
    )
    with pytest.raises(jtrust.BadArgument, match="activation swish"):
        train(
            point, tmp_path / "other", initialize_from=tmp_path / "brax",
            network=jtrust.NetworkConfig(**shape),
        )
    config = next((tmp_path / "brax").rglob("ppo_network_config.json"))
    config.write_text(config.read_text().replace("tanh_normal", "normal"))
    with pytest.raises(jtrust.BadArgument, match="another network"):
        train(point, tmp_path / "other", initialize_from=tmp_path / "brax")
    config.write_text("{")
    with pytest.raises(jtrust.BadArgument, match="cannot be read"):
        train(point, tmp_path / "other", initialize_from=tmp_path / "brax")


@pytest.mark.parametrize("network, said", [
    (jtrust.NetworkConfig(policy_layers=(8,)), "policy"),
    (jtrust.NetworkConfig(activation="relu"), "activation tanh"),
    (jtrust.NetworkConfig(squash=True), "squash False"),
])
def test_what_does_not_fit_is_one_line(evaluated, point, tmp_path, network, said):
    with pytest.raises(jtrust.BadArgument, match=f"initialize_from=.*{said}"):
        train(point, tmp_path / "other", initialize_from=evaluated[0], network=network)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("arguments, said", [
    (dict(keep_best=True), "keep_best=True: needs evaluate_every"),
    (dict(stop_at=5.0), "stop_at=5.0: needs evaluate_every"),
    (dict(stop_at=0), "stop_at=0.0: needs evaluate_every"),
    (dict(evaluate_every=0), "evaluate_every=0"),
    (dict(evaluate_every=2, stop_at=float("nan")), "stop_at=nan"),
    (dict(evaluate_every=2, keep_best="yes"), "keep_best='yes'"),
    (dict(initialize_from="/nothing/here"), "initialize_from=.*does not exist"),
])
def test_arguments_that_will_not_do(point, tmp_path, arguments, said):
    with pytest.raises(jtrust.BadArgument, match=said):
        train(point, tmp_path / "bad", **arguments)
    assert not (tmp_path / "bad").exists()


def test_a_run_that_kept_no_best_says_so(point, tmp_path):
    train(point, tmp_path / "plain", total_steps=128)
    with pytest.raises(jtrust.BadArgument, match=r"best=True: .*kept none; train with"):
        jtrust.load_policy(tmp_path / "plain", "best")


@pytest.mark.parametrize("fields", [
    {"every": 0}, {"every": "x"}, {"keep_best": True}, {"every": 2, "stop_at": "high"},
    {"every": 2, "other": 1}, {"every": True},
])
def test_a_damaged_configuration_is_one_line(evaluated, tmp_path, fields):
    copy = tmp_path / "copy"
    shutil.copytree(evaluated[0], copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"evaluation": fields}))
    with pytest.raises(jtrust.BadArgument, match="evaluation"):
        jtrust.load_policy(copy)
