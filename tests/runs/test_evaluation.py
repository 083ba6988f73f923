"""Evaluation: compiled once however often it is asked for, and honest about broken episodes."""

import json
import logging
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.environments.same import fingerprint
from tests.conftest import Point

SMALL = dict(num_envs=8, unroll_length=8, devices=1)


class Pushed(Point):
    """A point that a wind pushes, and that breaks where it starts too far to the right."""

    def __init__(self, wind=0.0, breaks_above=9.0):
        self.wind, self.breaks_above = wind, breaks_above

    def step(self, state, action):
        position = state.position + 0.1 * action[0] + self.wind
        broken = state.position > self.breaks_above
        return self._state(jnp.where(broken, jnp.nan, position), action[0])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "r"
    env = jtrust.make_env("brax/fast", episode_length=20)
    jtrust.train(env, total_steps=128, run_dir=path, checkpoint_every=1, **SMALL)
    return path


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluation") / "own"
    env = jtrust.describe(Pushed(), "Pushed", episode_length=20)
    jtrust.train(env, total_steps=64, run_dir=path, **SMALL)
    return path


@pytest.fixture
def compiled(caplog):
    """A call gives how often evaluation was compiled since the last one."""

    def count():
        messages = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return sum("Compiling jit(evaluate_policy)" in message for message in messages)

    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        yield count


def test_what_is_evaluated_again_by_name_is_compiled_once(run_dir, compiled):
    first = jtrust.evaluate(run_dir, episodes=3)
    assert compiled() == 1
    assert jtrust.evaluate(run_dir, episodes=3) == first
    early = jtrust.evaluate(run_dir, episodes=3, step=0)  # other parameters, the same program
    assert early["step"] == 0 and early["return_mean"] != first["return_mean"]
    assert compiled() == 0
    sampled = jtrust.evaluate(run_dir, episodes=3, stochastic=True)
    assert compiled() == 1 and sampled["return_mean"] != first["return_mean"]
    assert jtrust.evaluate(run_dir, episodes=3, stochastic=True) == sampled
    assert jtrust.evaluate(run_dir, episodes=3, stochastic=True, seed=1) != sampled
    assert compiled() == 0


def test_the_same_object_is_compiled_once_and_a_changed_one_again(own, compiled):
    env = Pushed()
    first = jtrust.evaluate(own, episodes=4, env=env)
    assert compiled() == 1
    assert jtrust.evaluate(own, episodes=4, env=env) == first
    assert jtrust.evaluate(own, episodes=4, env=Pushed()) == first  # another of the same effect
    assert compiled() == 0
    env.wind = 0.3  # the same object, and not the same environment
    windy = jtrust.evaluate(own, episodes=4, env=env)
    assert compiled() == 1 and windy["return_mean"] < first["return_mean"] - 1
    # The other network of another run is not mistaken for this one's.
    assert jtrust.evaluate(own, episodes=4, env=Pushed()) == first
    assert compiled() == 0


@pytest.mark.parametrize("change", [
    lambda env: Pushed(1e-7), lambda env: Pushed(breaks_above=np.float32(0.5)),
    lambda env: jtrust.wrappers.scale_reward(env, 0.5),
    lambda env: jtrust.wrappers.action_repeat(env, 2),
    lambda env: jtrust.describe(env, "x", episode_length=7),
])
def test_environments_that_act_otherwise_have_other_fingerprints(change):
    env = jtrust.describe(Pushed(), "x")
    assert fingerprint(env) == fingerprint(jtrust.describe(Pushed(), "y"))
    assert fingerprint(jtrust.describe(change(env), "x")) != fingerprint(env)


def test_constants_in_arrays_count(point):
    class Field(Point):
        def __init__(self, forces):
            self.forces = forces

        def step(self, state, action):
            force = jnp.asarray(self.forces)[jnp.int32(state.position > 0)]
            return super().step(state, action + force)

    forces = np.zeros((5000, 1), np.float32)
    other = forces.copy()
    other[2500] = 1e-3  # where no text of an array shows it
    marks = {fingerprint(jtrust.describe(Field(f), "x")) for f in (forces, forces.copy(), other)}
    assert len(marks) == 2


def test_episodes_that_broke_are_counted_apart(own, capfd):
    found = jtrust.evaluate(own, episodes=64, env=Pushed(breaks_above=0.2))
    assert 0 < found["nonfinite"] < 64 and found["episodes"] == 64
    # Whole ones took all of their steps; the broken ones, of one or a few, would show here.
    assert found["length_mean"] == 20.0
    everything = jtrust.evaluate(own, episodes=64, env=Pushed(breaks_above=-9.0))
    assert everything == found | {
        "nonfinite": 64, "return_mean": None, "return_std": None, "length_mean": None,
    }
    json.dumps(everything, allow_nan=False)


def test_the_command_line_says_how_many_broke(own, tmp_path, monkeypatch, capfd):
    (tmp_path / "pushed.py").write_text(
        "from tests.runs.test_evaluation import Pushed\n"
        "def some(): return Pushed(breaks_above=0.2)\ndef all(): return Pushed(breaks_above=-9.0)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = json.loads((own / "config.json").read_text())
    for name, says in (
        ("some", r" over \d+ episodes; \d+ more ended in NaN"), ("all", "no whole episode"),
    ):
        (own / "config.json").write_text(json.dumps(
            config | {"env": f"pushed:{name}", "env_options": {"episode_length": 20}}
        ))
        arguments = ["evaluate", str(own), "--episodes", "16", "--allow-code"]
        assert main(arguments) == 0
        assert re.search(says, capfd.readouterr().out)
        assert main([*arguments, "--json"]) == 0
        found = json.loads(capfd.readouterr().out)
        assert found["nonfinite"] > 0 and (found["return_mean"] is None) == (name == "all")
    (own / "config.json").write_text(json.dumps(config))
    sys.modules.pop("pushed", None)
