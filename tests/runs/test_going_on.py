"""What goes on: runs that are read while they are written, and what a run was begun with."""

import json
import os
import shutil
import sys
import types
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.runs.checkpoints import CheckpointReader
from jtrust.runs.metrics import SERVICES

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=8, unroll_length=8, devices=1)
PRETRAINED = Path(__file__).parents[2] / "checkpoints" / "pretrained"


@pytest.fixture(scope="module")
def original(tmp_path_factory, point):
    path = tmp_path_factory.mktemp("going-on") / "original"
    jtrust.train(point, total_steps=128, run_dir=path, checkpoint_every=1, **SMALL)
    return path


@pytest.fixture
def run_dir(original, tmp_path):
    return shutil.copytree(original, tmp_path / "run")


# While another process writes.


def test_a_step_that_goes_while_it_is_read_is_looked_for_again(run_dir, monkeypatch):
    read = CheckpointReader.read
    gone = []

    def go(self, step, *args, **kwargs):
        if not gone:
            os.rename(run_dir / str(step), run_dir / "192")  # the next one comes, and this one goes
            gone.append(step)
        return read(self, step, *args, **kwargs)

    monkeypatch.setattr(CheckpointReader, "read", go)
    shutil.rmtree(run_dir / "0")
    shutil.rmtree(run_dir / "64")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CheckpointReader(run_dir).newest_whole(policy_only=True)[0] == 192
    gone.clear()
    with pytest.raises(jtrust.BadArgument, match="no such checkpoint; there are 192"):
        os.rename(run_dir / "192", run_dir / "128")
        jtrust.load_policy(run_dir, step=128)


# What a run was begun with.


def events(path):
    return sorted(path.glob("events.out.tfevents*"))


def test_what_a_run_was_begun_with_goes_on_and_can_be_changed(tmp_path, point, monkeypatch):
    run = tmp_path / "r"
    jtrust.train(point, total_steps=64 * 3, run_dir=run, checkpoint_every=1, keep_checkpoints=2,
                 tensorboard=True, **SMALL)
    assert CheckpointReader(run).steps() == [128, 192] and len(events(run)) == 1
    monkeypatch.setattr("tensorboardX.event_file_writer.time.time", lambda: 4e9)  # names the file
    jtrust.resume(run, 64 * 6, env=point, devices=1)
    assert CheckpointReader(run).steps() == [320, 384]
    assert len(events(run)) == 2 and b"policy/kl" in events(run)[-1].read_bytes()
    jtrust.resume(run, 64 * 9, env=point, devices=1, tensorboard=False, keep_checkpoints=0)
    assert len(events(run)) == 2
    jtrust.resume(run, 64 * 11, env=point, devices=1)  # and that goes on, too
    assert CheckpointReader(run).steps() == [320, 384, 448, 512, 576, 640, 704]
    assert len(events(run)) == 2


def test_the_command_line_changes_what_a_run_was_begun_with(tmp_path, capfd, monkeypatch):
    run = str(tmp_path / "r")
    seen = []

    def noted(run_dir, steps, **given):
        seen.append({k: given[k] for k in ("tensorboard", "wandb", "mlflow",
                                             "keep_checkpoints")})
        raise jtrust.BadArgument("x", 1, "enough")

    jtrust.train(jtrust.make_env("brax/fast"), total_steps=64, run_dir=run, **SMALL)
    monkeypatch.setattr("jtrust.runs.resume", noted)
    for options in ([], ["--tensorboard"], ["--no-tensorboard", "--no-wandb"],
                    ["--keep-checkpoints", "0"]):
        assert main(["resume", run, *options]) == 2
    nothing = dict(tensorboard=None, wandb=None, mlflow=None, keep_checkpoints=None)
    assert seen == [
        nothing, nothing | dict(tensorboard=True), nothing | dict(tensorboard=False, wandb=False),
        nothing | dict(keep_checkpoints=0),
    ]
    capfd.readouterr()
    assert main(["resume", run, "--wandb", "--no-wandb"]) == 2
    assert "--wandb" in capfd.readouterr().err and len(seen) == 4


def test_a_run_of_weights_and_biases_is_the_same_one_again(tmp_path, point, monkeypatch):
    begun, logged = [], []
    session = types.SimpleNamespace(
        log=lambda row, step: logged.append(step), finish=lambda: logged.append("end")
    )
    module = types.SimpleNamespace(init=lambda **given: (begun.append(given), session)[1])
    monkeypatch.setitem(sys.modules, "wandb", module)
    jtrust.train(point, total_steps=64, run_dir=tmp_path / "r", wandb=True, **SMALL)
    jtrust.resume(tmp_path / "r", 128, env=point, devices=1)
    assert logged == [64, "end", 128, "end"]
    assert begun[0]["id"] == begun[1]["id"] and begun[1]["resume"] == "allow"
    jtrust.resume(tmp_path / "r", 192, env=point, devices=1, wandb=False)
    assert len(begun) == 2


def test_a_run_that_says_nothing_of_this_opens_as_before(run_dir, point):
    config = json.loads((run_dir / "config.json").read_text())
    for name in ("keep_checkpoints", "tensorboard", "wandb", "wandb_id", "mlflow", "mlflow_id",
                 "random_keys", "signature"):
        del config[name]
    (run_dir / "config.json").write_text(json.dumps(config))
    result = jtrust.resume(run_dir, 192, env=point, devices=1)
    assert result.metrics["step"].tolist() == [192]
    assert CheckpointReader(run_dir).steps() == [0, 64, 128, 192]


@pytest.mark.parametrize("service", ["wandb", "mlflow", "tensorboard"])
def test_a_service_that_is_not_installed_is_told_before_anything_is_made(
    tmp_path, point, service, monkeypatch
):
    packages = SERVICES[service]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name not in packages or None)
    for package in packages:
        monkeypatch.delitem(sys.modules, package, raising=False)
    with pytest.raises(jtrust.BadArgument, match=rf"jtrust\[{service}\]"):
        jtrust.train(point, total_steps=64, run_dir=tmp_path / "r", **{service: True}, **SMALL)
    assert not (tmp_path / "r").exists()


# Kinds of random keys.


def test_another_kind_of_random_key_is_named_with_the_variable(run_dir, point):
    before = (run_dir / "config.json").read_text()
    with jax.default_prng_impl("rbg"), pytest.raises(jtrust.BadArgument) as caught:
        jtrust.resume(run_dir, 192, env=point, devices=1)
    assert caught.value.name == "JAX_DEFAULT_PRNG_IMPL"
    assert "rbg" in str(caught.value) and "threefry2x32" in str(caught.value)
    # A run that does not say: by how many words a key has.
    config = json.loads(before)
    config["random_keys"] = ""
    (run_dir / "config.json").write_text(json.dumps(config))
    with jax.default_prng_impl("rbg"), pytest.raises(jtrust.BadArgument) as caught:
        jtrust.resume(run_dir, 192, env=point, devices=1)
    assert caught.value.name == "JAX_DEFAULT_PRNG_IMPL" and "threefry2x32" in str(caught.value)
    # Two kinds of one width.
    config["random_keys"] = "unsafe_rbg"
    (run_dir / "config.json").write_text(json.dumps(config))
    with jax.default_prng_impl("rbg"), pytest.raises(jtrust.BadArgument, match="kind unsafe_rbg"):
        jtrust.resume(run_dir, 192, env=point, devices=1)
    with jax.default_prng_impl("rbg"):  # to look at what was learned takes no keys of the run's
        assert jtrust.load_policy(run_dir)(jnp.zeros(2)).shape == (1,)


def test_keys_of_a_kind_of_their_own_are_stored_and_found_again():
    from jtrust.runs.checkpoints import from_arrays, to_arrays

    tree = {"a": jax.random.key(1, impl="rbg"), "b": jax.random.key(2)}
    like = jax.eval_shape(lambda: tree)
    back = from_arrays(to_arrays(tree), like, "here")
    assert jax.random.key_impl(back["a"]) == "rbg"
    for name in tree:
        np.testing.assert_array_equal(*map(jax.random.key_data, (tree[name], back[name])))


# A policy to take away, and nothing compiled.


def test_a_policy_alone_is_told_from_damage(capfd):
    run = PRETRAINED / "CartPole"
    before = sorted(run.rglob("*"))
    assert main(["resume", str(run)]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert "holds a policy alone" in line and "jtrust evaluate" in line and "load_policy" in line
    assert sorted(run.rglob("*")) == before


@pytest.mark.nightly
def test_without_compiling_a_run_is_trained_resumed_and_evaluated(tmp_path, point):
    env = jtrust.describe(point, "point", episode_length=3)
    # Little to do: each operation is dispatched on its own.
    algorithm = jtrust.NPG(cg_iterations=1, value_epochs=1, value_minibatches=1)
    network = jtrust.NetworkConfig((4,), (4,), initialization="lecun_uniform")
    given = dict(num_envs=2, unroll_length=2, devices=1, network=network)
    run = tmp_path / "r"
    with jax.disable_jit():
        found = jtrust.train(env, algorithm, total_steps=4, run_dir=run, **given).metrics
        assert jtrust.resume(run, 8, env=env, devices=1).metrics["step"].tolist() == [8]
        assert jtrust.evaluate(run, env=env, episodes=1)["length_mean"] == 3
    compiled = jtrust.train(env, algorithm, total_steps=4, **given).metrics
    np.testing.assert_allclose(found["policy/kl"], compiled["policy/kl"], rtol=1e-3)
