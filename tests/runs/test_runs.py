"""Runs on disk: what a run directory holds, resuming exactly, policies loaded, evaluation."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.runs.checkpoints import CheckpointReader

pytestmark = pytest.mark.slow

CONTRACT_KEYS = {
    "step", "iteration", "time/seconds", "time/steps_per_second", "episode/return",
    "episode/length", "policy/kl", "policy/kl_predicted", "policy/accepted", "policy/step_scale",
    "policy/entropy", "policy/surrogate_gain", "value/loss", "value/explained_variance",
    "observation/drift_kl",
}
SMALL = dict(num_envs=16, unroll_length=8, devices=1)
ALGORITHMS = [
    jtrust.TRPO(), jtrust.PPO(minibatches=4),
    *(pytest.param(a, marks=pytest.mark.nightly) for a in (jtrust.NPG(), jtrust.PPOPenalty())),
]


def fast():
    return jtrust.make_env("brax/fast", episode_length=30)


def lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "a run with ünïcode"
    result = jtrust.train(
        fast(), jtrust.TRPO(), total_steps=128 * 8, seed=5, run_dir=run_dir, checkpoint_every=3,
        **SMALL,
    )
    return run_dir, result


def test_a_run_directory_holds_what_the_contract_says(finished):
    run_dir, result = finished
    rows = lines(run_dir)
    assert [r["iteration"] for r in rows] == list(range(1, 9))
    assert [r["step"] for r in rows] == [128 * i for i in range(1, 9)]
    assert all(set(r) >= CONTRACT_KEYS | {"policy/cg_residual"} for r in rows)
    assert rows[0]["episode/return"] is None  # no episode has ended after 8 of 30 steps
    assert rows[-1]["episode/length"] == 30
    assert CheckpointReader(run_dir).steps() == [0, 3 * 128, 6 * 128, 8 * 128]
    config = json.loads((run_dir / "config.json").read_text())
    assert (config["env"], config["algorithm"], config["seed"]) == ("brax/fast", "trpo", 5)
    assert config["hyperparameters"]["max_kl"] == 0.01
    np.testing.assert_array_equal(result.metrics["step"], [r["step"] for r in rows])
    assert np.isnan(result.metrics["episode/return"][0])


def test_checkpoints_are_orbax_checkpoints(finished):
    import orbax.checkpoint as ocp

    run_dir, result = finished
    with ocp.CheckpointManager(run_dir) as manager:
        assert manager.latest_step() == 1024
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.restore(run_dir / "1024" / "policy")
    np.testing.assert_array_equal(
        stored["policy.params.mlp.input.kernel"],
        result.state.policy["params"]["mlp"]["input"]["kernel"],
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: a.name)
def test_the_same_seed_gives_the_same_metrics_and_resuming_changes_nothing(tmp_path, algorithm):
    arguments = dict(seed=1, checkpoint_every=2, **SMALL)
    whole = jtrust.train(
        fast(), algorithm, total_steps=128 * 7, run_dir=tmp_path / "whole", **arguments
    )
    jtrust.train(fast(), algorithm, total_steps=128 * 3, run_dir=tmp_path / "cut", **arguments)
    # As if killed after three iterations, half a line in hand, the third's checkpoint unfinished.
    with open(tmp_path / "cut" / "metrics.jsonl", "a") as file:
        file.write('{"step": 512, "itera')
    (tmp_path / "cut" / str(3 * 128)).rename(tmp_path / "cut" / "384.orbax-checkpoint-tmp")
    jtrust.resume(tmp_path / "cut", 128 * 5, devices=1)
    resumed = jtrust.resume(tmp_path / "cut", 128 * 7, devices=1)
    assert without_times(lines(tmp_path / "cut")) == without_times(lines(tmp_path / "whole"))

    def leaves(state):
        return [
            np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
                       else x) for x in jax.tree.leaves(state)
        ]

    for a, b in zip(leaves(whole.state), leaves(resumed.state), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.nightly
def test_a_checkpoint_of_eight_devices_opens_on_one_and_back(tmp_path):
    arguments = dict(num_envs=16, unroll_length=8, seed=1)
    whole = jtrust.train(fast(), jtrust.TRPO(), total_steps=128 * 4, devices=1, **arguments)
    jtrust.train(
        fast(), jtrust.TRPO(), total_steps=128 * 2, devices=8, run_dir=tmp_path / "r", **arguments
    )
    result = jtrust.resume(tmp_path / "r", 128 * 3, devices=1)
    assert len(result.state.episodes.length.sharding.device_set) == 1
    result = jtrust.resume(tmp_path / "r", 128 * 4, devices=2)
    assert len(result.state.episodes.length.sharding.device_set) == 2
    np.testing.assert_allclose(
        result.metrics["policy/entropy"][-1], whole.metrics["policy/entropy"][-1], rtol=1e-3
    )


def test_a_loaded_policy_acts_as_the_trained_one(finished):
    run_dir, result = finished
    policy = jtrust.load_policy(run_dir)
    x = jax.random.normal(jax.random.key(0), (4, 3, 2))
    np.testing.assert_array_equal(policy(x), result.policy(x))
    assert policy(x).shape == (4, 3, 1) and policy(x[0, 0]).shape == (1,)
    np.testing.assert_allclose(policy(x)[2, 1], policy(x[2, 1]), rtol=1e-5, atol=1e-6)
    one, two = policy(x, jax.random.key(1)), policy(x, jax.random.key(2))
    assert not np.array_equal(one, two) and np.all(np.abs(one) <= 1)
    early = jtrust.load_policy(run_dir, step=0)
    assert not np.array_equal(early(x), policy(x))
    with pytest.raises(jtrust.BadArgument, match="last axis of 2"):
        policy(jnp.zeros(3))


def test_evaluation_counts_each_environment_once_and_needs_no_training_state(finished):
    run_dir, result = finished
    found = jtrust.evaluate(run_dir, episodes=10)
    assert set(found) == {
        "env", "algorithm", "step", "episodes", "return_mean", "return_std", "length_mean",
        "nonfinite",
    }
    assert (found["step"], found["episodes"], found["length_mean"]) == (1024, 10, 30.0)
    # One environment by hand: fast has no randomness, so every episode is this one.
    environment = fast()
    state, total = jax.jit(environment.reset)(jax.random.key(9)), 0.0
    step = jax.jit(environment.step)
    for _ in range(30):
        state = step(state, result.policy(state.obs))
        total += float(state.reward)
    np.testing.assert_allclose(found["return_mean"], total, rtol=1e-4)
    assert found["return_std"] < 1e-3


def test_a_run_without_a_directory_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = jtrust.train(fast(), total_steps=128, **SMALL)
    assert result.run_dir is None and list(tmp_path.iterdir()) == []
    assert result.policy(jnp.zeros(2)).shape == (1,)


def test_an_object_as_environment_is_kept_by_name_and_given_again(tmp_path, point):
    jtrust.train(point, total_steps=128, run_dir=tmp_path / "r", **SMALL)
    assert jtrust.resume(tmp_path / "r", 256, env=point, devices=1).metrics["step"][-1] == 256
    assert jtrust.evaluate(tmp_path / "r", episodes=3, env=point)["episodes"] == 3
    assert jtrust.load_policy(tmp_path / "r")(jnp.zeros(2)).shape == (1,)
    with pytest.raises(jtrust.BadArgument):
        jtrust.evaluate(tmp_path / "r", episodes=3)


def test_only_as_many_checkpoints_are_kept_as_asked(tmp_path):
    jtrust.train(fast(), total_steps=128 * 5, run_dir=tmp_path / "r", checkpoint_every=1,
                 keep_checkpoints=2, **SMALL)
    assert CheckpointReader(tmp_path / "r").steps() == [512, 640]


def test_tensorboard_files_hold_the_metrics(tmp_path):
    jtrust.train(fast(), total_steps=128, run_dir=tmp_path / "r", tensorboard=True, **SMALL)
    (events,) = (tmp_path / "r").glob("events.out.tfevents*")
    assert b"policy/kl" in events.read_bytes()


def test_a_whole_run_compiles_the_iteration_once_and_so_does_a_resumed_one(tmp_path, caplog):
    arguments = dict(num_envs=16, unroll_length=8, checkpoint_every=2)

    def compiled():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return sum("Compiling jit(iterate)" in message for message in messages)

    with jax.log_compiles():
        jtrust.train(fast(), total_steps=128 * 5, run_dir=tmp_path / "r", devices=8, **arguments)
        assert compiled() == 1
        jtrust.resume(tmp_path / "r", 128 * 9, devices=8)
        assert compiled() == 1
