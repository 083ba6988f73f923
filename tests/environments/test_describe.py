"""Describing a user's object: mistakes are told by the name of the field, before anything runs."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import Bins, batch, describe, wrappers

pytestmark = pytest.mark.slow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array
    info: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Unregistered:
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class Made:
    """An environment of two states: what reset returns and what step returns."""

    action_size = 1

    def __init__(self, start, after):
        self._start, self._after = start, after

    def reset(self, key):
        return self._start()

    def step(self, state, action):
        return self._after(state, action)


def good(**changes):
    return lambda *_: dataclasses.replace(State(jnp.zeros(2), jnp.float32(0), jnp.float32(0)),
                                          **changes)


def test_whole_numbers_at_the_start_do_not_cut_the_fractions_that_follow():
    def start():
        return State(jnp.array([0, 1]), 0, False)

    def after(state, action):
        return State(state.obs + 0.25, 0.7, jnp.float32(0))

    environment = describe(Made(start, after), "made")
    assert environment.observation.dtype == jnp.float32
    episodes = batch.begin(batch.reset_states(environment, jax.random.split(jax.random.key(0), 8)))
    for _ in range(2):
        episodes, outcome = batch.step(environment, episodes, jnp.zeros((8, 1)))
        np.testing.assert_allclose(outcome.reward, 0.7, rtol=1e-6)
    np.testing.assert_allclose(episodes.observation, np.tile([0.5, 1.5], (8, 1)))


def later(x):
    """Another type at each call: nothing that reset could begin with."""
    return jnp.float32(x) if jnp.issubdtype(x.dtype, jnp.integer) else jnp.complex64(x)


WRONG = [
    (good(), good(info={"extra": jnp.ones(1)}), r"env.reset\(\).info\['extra'\]=None: is missing"),
    (good(info={"left": jnp.ones(1)}), good(), r"env.step\(\).info\['left'\]=None: is missing"),
    (good(), good(obs={"a": jnp.ones(2)}), r"env.step\(\).obs=None: is missing"),
    (good(), good(obs=jnp.ones(3)), r"env.step\(\).obs=\(3,\): must have the shape"),
    (good(info={"truncation": jnp.zeros(1)}), good(info={"truncation": jnp.zeros(1)}),
     r"info\['truncation'\]=\(1,\): must be a scalar"),
    (good(reward=jnp.zeros(1)), good(), r"env.reset\(\).reward=\(1,\)"),
    (good(obs=jnp.zeros(2, jnp.int32)), lambda s, a: good(obs=later(s.obs))(),
     r"env.step\(\).obs='complex64': must be of the type of reset's, float32"),
    (lambda: Unregistered(jnp.zeros(2), jnp.float32(0), jnp.float32(0)), good(),
     r"env.reset\(\)='Unregistered': .*register_dataclass"),
    (good(), lambda s, a: 1 / 0, r"ZeroDivisionError.*division by zero \(.*test_describe.py, l"),
]


@pytest.mark.parametrize(("start", "after", "says"), WRONG, ids=range(len(WRONG)))
def test_a_state_that_will_not_do_is_told_by_its_field(start, after, says):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        describe(Made(start, after), "made")
    assert "\n" not in str(caught.value)
    assert "--" not in caught.value.as_option()  # it names no option of the command line


@pytest.mark.parametrize("make", [
    lambda: jtrust.Box(1, 1.0, -1.0), lambda: jtrust.Box(1, -np.inf, np.inf),
    lambda: jtrust.Box(2, np.zeros(2), np.ones(2)), lambda: jtrust.Box(1.0), lambda: jtrust.Box(0),
    lambda: jtrust.Discrete(0), lambda: jtrust.Discrete("3"), lambda: jtrust.Discrete(3.0),
    lambda: Bins(1, 1), lambda: Bins(1, 2.5),
    lambda: describe(Made(good(), good()), "made", action=3),
])
def test_actions_that_cannot_be_are_refused(make):
    with pytest.raises(jtrust.BadArgument):
        make()


def test_brax_environments_that_restart_themselves_are_refused():
    from brax import envs

    with pytest.raises(jtrust.BadArgument, match=r"AutoResetWrapper.*restarts itself"):
        describe(envs.create("fast"), "fast")
    assert describe(envs.get_environment("fast"), "fast").episode_length == 1000


def test_what_is_described_already_takes_a_time_limit_and_refuses_other_actions():
    made = describe(Made(good(), good()), "made")
    assert describe(made, "again", episode_length=10).episode_length == 10
    with pytest.raises(jtrust.BadArgument, match="made is made with 1000"):
        describe(made, "again", episode_length=1001)
    with pytest.raises(jtrust.BadArgument, match="already"):
        describe(made, "again", action=jtrust.Discrete(2))
    with pytest.raises(jtrust.BadArgument, match="one observation"):
        describe(made, "again", policy_observation="state")


def test_wrappers_take_objects_and_say_what_to_do_with_a_name():
    stacked = wrappers.frame_stack(Made(good(), good()), 3)
    assert (stacked.name, stacked.observation.shape) == ("Made+frame_stack(3)", (6,))
    with pytest.raises(jtrust.BadArgument, match="make_env"):
        wrappers.action_repeat("brax/ant", 2)


@pytest.mark.nightly
def test_a_run_in_an_object_asks_for_it_again_and_for_its_time_limit(tmp_path):
    environment = describe(Made(good(), good()), "ant", episode_length=20)  # no Brax environment
    arguments = dict(num_envs=8, unroll_length=8, devices=1, run_dir=tmp_path / "run")
    jtrust.train(environment, total_steps=64, **arguments)
    for again in (jtrust.evaluate, lambda run: jtrust.resume(run, 128)):
        with pytest.raises(jtrust.BadArgument, match=r"trained in ant, an object.*env="):
            again(tmp_path / "run")
    with pytest.raises(jtrust.BadArgument, match="after 1000 steps; in the run it was 20"):
        jtrust.resume(tmp_path / "run", 128, env=describe(Made(good(), good()), "ant"))
    with pytest.raises(jtrust.BadArgument, match="no name; leave it out"):
        jtrust.resume(tmp_path / "run", 128, env="brax/ant")
    assert jtrust.resume(tmp_path / "run", 128, env=environment).policy is not None
    # The bare object is described as the run has it.
    bare = Made(good(), good())
    assert jtrust.resume(tmp_path / "run", np.int64(192), env=bare).policy is not None
    assert jtrust.evaluate(tmp_path / "run", env=bare, episodes=2)["length_mean"] == 20


def test_a_run_is_kept_whatever_kind_of_numbers_it_was_given(tmp_path):
    spaces = (jtrust.Box(np.int64(2), np.float32(-2), np.float32(2)),
              jtrust.Discrete(np.prod((3,))))
    for i, space in enumerate(spaces):
        environment = describe(Made(good(), good()), "made", action=space, episode_length=9,
                               options={"masses": [np.float32(1.5), (np.int64(2), None)]})
        jtrust.train(environment, total_steps=np.int64(64), num_envs=8, unroll_length=8, devices=1,
                     run_dir=tmp_path / str(i), checkpoint_every=np.int64(1))
        config = json.loads((tmp_path / str(i) / "config.json").read_text())
        assert config["env_options"] == {"masses": [1.5, [2, None]]}
        assert config["checkpoint_every"] == 1
        assert jtrust.evaluate(tmp_path / str(i), env=environment, episodes=2)["episodes"] == 2
    with pytest.raises(jtrust.BadArgument, match=r"robot=<object.*cannot be kept"):
        jtrust.train(describe(Made(good(), good()), "made", options={"robot": object()}),
                     num_envs=8, unroll_length=8, devices=1, run_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_doubles_throughout_are_refused_in_one_line():
    with jax.enable_x64(True), pytest.raises(jtrust.BadArgument, match="unset JAX_ENABLE_X64"):
        jtrust.make_trainer("brax/fast", jtrust.TRPO())
