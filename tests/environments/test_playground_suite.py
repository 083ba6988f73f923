"""MuJoCo Playground: its own physics step by step, its options, and randomised models."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.cli import main
from jtrust.environments import batch, playground_suite

pytestmark = pytest.mark.slow

registry = pytest.importorskip("mujoco_playground").registry


def test_every_environment_of_the_three_suites_is_listed():
    names = playground_suite.names()
    assert set(names) == set(registry.ALL_ENVS)
    assert {"CartpoleBalance", "Go1JoystickFlatTerrain", "PandaPickCube"} <= set(names)


def test_episodes_go_as_playground_steps_them_in_a_plain_loop():
    length, steps = 6, 9
    environment = jtrust.make_env("playground/CartpoleBalance", episode_length=length)
    theirs = registry.load("CartpoleBalance", config_overrides={"impl": "jax"})
    keys = jax.random.split(jax.random.key(0), 2)
    actions = jax.random.uniform(jax.random.key(1), (steps, 2, 1), minval=-1, maxval=1)

    @jax.jit
    def ours():
        starts = batch.reset_states(environment, keys)

        def step(episodes, action):
            moved, outcome = batch.step(environment, episodes, action)
            end = outcome.termination | outcome.truncation
            return batch.restart(moved, starts, end, jnp.int32(0)), (outcome, moved.observation)

        return jax.lax.scan(step, batch.begin(starts), actions)[1]

    rows, observations = ours()
    reset, their_step = jax.jit(theirs.reset), jax.jit(theirs.step)
    for i in range(2):
        state = reset(keys[i])
        for t in range(steps):
            state = their_step(state, actions[t, i])
            outcome = jax.tree.map(lambda x: x[t], rows)  # noqa: B023
            np.testing.assert_allclose(observations[t, i], state.obs, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(outcome.reward[i], state.reward, rtol=1e-4, atol=1e-5)
            cut = t == length - 1  # a time limit is not a failure
            assert outcome.truncation[i] == cut and not outcome.termination[i]
            if cut:
                state = reset(keys[i])


def test_options_are_those_of_the_environments_configuration():
    name = "playground/CartpoleBalance"
    plain, slow = jtrust.make_env(name), jtrust.make_env(name, sim_dt=0.005, ctrl_dt=0.05)
    assert plain.episode_length == 1000 and plain.options == {"backend": "jax"}
    assert slow.options == {"backend": "jax", "sim_dt": 0.005, "ctrl_dt": 0.05}

    @jax.jit
    def cart_after_one_step(key):
        return [e.step(e.reset(key), jnp.ones(1)).obs[0] - e.reset(key).obs[0]
                for e in (plain, slow)]

    quick, long = map(abs, cart_after_one_step(jax.random.key(0)))
    assert long > 2 * quick  # five times the time
    dotted = jtrust.make_env(name, **{"vision_config.nworld": 3})
    assert dotted.options["vision_config.nworld"] == 3


@pytest.mark.parametrize(("name", "arguments", "says"), [
    ("CartpoleBallance", {}, "CartpoleBalance"), ("CartpoleBalance", {"ctrl_d": 1}, "ctrl_dt"),
    ("CartpoleBalance", {"ctrl_dt": "red"}, "float"),
    ("CartpoleBalance", {"ctrl_dt": True}, "float"),
    ("CartpoleBalance", {"ctrl_dt": 0.0}, "above 0"),
    ("CartpoleBalance", {"ctrl_dt": 1e-3}, "sim_dt at most ctrl_dt"),
    ("CartpoleBalance", {"sim_dt": float("nan")}, "finite"),
    ("CartpoleBalance", {"episode_length": 0}, "1000"),
    ("CartpoleBalance", {"backend": "cpp"}, "jax"),
    ("CartpoleBalance", {"domain_randomization": True}, "no randomiser"),
    ("CartpoleBalance", {"domain_randomization": 1}, "True or False"),
    ("CartpoleBalance", {"policy_observation": "state"}, "one observation"),
    ("CartpoleBalance", {"impl": "warp"}, "chosen by backend"),
    ("CartpoleBalance", {"action_repeat": 4}, "wrappers.action_repeat"),
    ("CartpoleBalance", {"vision": True}, "only implemented for MuJoCo Warp"),
    ("CartpoleBalance", {"randomizer": 3}, "function"),
    ("CartpoleBalance", {"randomizer": lambda model, keys: model}, "in_axes"),
    ("CartpoleBalance", {"randomizer": lambda model, keys: (model, None)}, "changes nothing"),
])
def test_what_will_not_do_is_answered_in_one_line(name, arguments, says):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        jtrust.make_env(f"playground/{name}", **arguments)
    assert "\n" not in str(caught.value)


def test_a_model_that_cannot_be_read_is_told_of_in_one_line(monkeypatch):
    def load(name, config):
        raise ValueError("mesh 'foot.stl' not found\nin a file")

    monkeypatch.setattr(registry, "load", load)
    with pytest.raises(jtrust.BadArgument, match=r"ValueError: mesh 'foot.stl' not found") as found:
        jtrust.make_env("playground/CartpoleBalance")
    assert "\n" not in str(found.value)


def test_missing_robot_models_are_not_downloaded_but_told_of(monkeypatch, tmp_path):
    from mujoco_playground._src import mjx_env

    monkeypatch.setattr(mjx_env, "MENAGERIE_PATH", tmp_path / "nowhere")
    with pytest.raises(jtrust.BadArgument, match=r"robot models .*`git clone \S+ \S+nowhere"):
        jtrust.make_env("playground/Go1JoystickFlatTerrain")
    assert "download" in playground_suite.remark("Go1JoystickFlatTerrain")
    assert not playground_suite.remark("CartpoleBalance")


def heavier(model, keys):
    """Every cart its own mass; the rest as it was."""
    scale = jax.vmap(lambda k: jax.random.uniform(k, minval=0.5, maxval=3.0))(keys)
    mass = model.body_mass * scale[:, None]
    in_axes = jax.tree.map(lambda _: None, model)
    return model.tree_replace({"body_mass": mass}), in_axes.tree_replace({"body_mass": 0})


def lighter(model, keys):
    """Every cart its own mass, and all of them another gravity."""
    model, axes = heavier(model, keys)
    return model.tree_replace({"opt.gravity": jnp.asarray([0.0, 0.0, -1.0])}), axes


def test_what_a_randomiser_changes_alike_for_all_is_changed_too():
    environment = jtrust.make_env("playground/CartpoleBalance", randomizer=lighter)
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = sorted(x.shape for x in environment.vary(keys))
    assert shapes == [(4, 3), (4, 3)]  # gravity, and the masses of three bodies
    gravity = next(x for x in environment.vary(keys) if float(x[0, 0]) == 0.0 and x[0, 2] < 0)
    np.testing.assert_array_equal(gravity, np.tile([0.0, 0.0, -1.0], (4, 1)))


@pytest.mark.nightly
def test_a_randomised_environment_keeps_its_own_model_through_restarts():
    from mujoco_playground._src import wrapper

    environment = jtrust.make_env(
        "playground/CartpoleBalance", randomizer=heavier, episode_length=3
    )
    keys = jax.random.split(jax.random.key(0), 4)
    variation = batch.variations(environment, keys)
    assert [x.shape for x in variation] == [(4, 3)] and len(np.unique(variation[0][:, 1])) == 4

    @jax.jit
    def run(variation):
        starts = batch.reset_states(environment, keys, variation)

        def step(episodes, t):
            moved, outcome = batch.step(environment, episodes, jnp.ones((4, 1)))
            end = outcome.termination | outcome.truncation
            return batch.restart(moved, starts, end, t), moved.observation

        return jax.lax.scan(step, batch.begin(starts, variation), jnp.arange(6))

    episodes, seen = run(variation)
    np.testing.assert_array_equal(episodes.variation[0], variation[0])
    # Each starts again from its own start, and under its own mass does the same again.
    np.testing.assert_array_equal(seen[0], seen[3])
    np.testing.assert_array_equal(seen[2], seen[5])

    # As Playground's own wrapper has it.
    theirs = registry.load("CartpoleBalance", config_overrides={"impl": "jax"})
    theirs = wrapper.BraxDomainRandomizationVmapWrapper(theirs, lambda model: heavier(model, keys))
    state, their_step = jax.jit(theirs.reset)(keys), jax.jit(theirs.step)
    for t in range(3):
        state = their_step(state, jnp.ones((4, 1)))
        np.testing.assert_allclose(seen[t], state.obs, rtol=1e-4, atol=1e-4)


def test_domain_randomization_takes_the_suites_own_randomiser(monkeypatch):
    monkeypatch.setattr(registry, "get_domain_randomizer", lambda name: heavier)
    environment = jtrust.make_env("playground/CartpoleBalance", domain_randomization=True)
    assert environment.vary is not None and environment.options["domain_randomization"] is True
    assert environment.name == "playground/CartpoleBalance"
    variation = environment.vary(jax.random.split(jax.random.key(0), 3))
    assert [x.shape for x in variation] == [(3, 3)] and len(np.unique(variation[0][:, 1])) == 3
    assert jtrust.make_env("playground/CartpoleBalance").vary is None
    # One of the user's own goes before the suite's.
    both = jtrust.make_env(
        "playground/CartpoleBalance", domain_randomization=True, randomizer=lighter
    )
    assert float(both.vary(jax.random.split(jax.random.key(0), 1))[0][0, 2]) == -1.0


@pytest.mark.nightly
def test_a_randomised_run_is_kept_and_evaluated_by_its_name(monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(registry, "get_domain_randomizer", lambda name: heavier)
    run = str(tmp_path / "run")
    assert main([
        "train", "playground/CartpoleBalance", "--domain-randomization", "--steps", "64",
        "--num-envs", "8", "--unroll-length", "8", "--devices", "1", "--episode-length", "10",
        "--run-dir", run,
    ]) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["env_options"]["domain_randomization"] is True
    capfd.readouterr()
    assert main(["evaluate", run, "--episodes", "2", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["length_mean"] == 10


def test_brax_takes_a_randomizer_too():
    def weaker(system, keys):
        gear = jax.vmap(lambda k: system.actuator.gear * jax.random.uniform(k))(keys)
        axes = jax.tree.map(lambda _: None, system)
        return (system.tree_replace({"actuator.gear": gear}),
                axes.tree_replace({"actuator.gear": 0}))

    environment = jtrust.make_env("brax/inverted_pendulum", randomizer=weaker)
    assert environment.name.endswith("+randomizer")
    key = jax.random.key(0)
    gears = environment.vary(jax.random.split(key, 2))

    @jax.jit
    def speed(gear):
        state = environment.reset(key, [gear])
        return environment.step(state, jnp.ones(1), [gear]).obs[2] - state.obs[2]

    weak, strong = jnp.sort(gears[0], axis=0)
    assert 0 < speed(weak) < speed(strong)
    with pytest.raises(jtrust.BadArgument, match="env="):
        jtrust.make_env(environment.name)
    with pytest.raises(jtrust.BadArgument, match="no randomiser"):
        jtrust.make_env("brax/ant", domain_randomization=True)
