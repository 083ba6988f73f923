"""MuJoCo Warp's physics, on a CPU: it trains, as the other physics do, and says what it lost."""

import dataclasses
import functools
import shutil
import struct
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mujoco_playground import registry

import jtrust
from jtrust.cli import main
from jtrust.environments import batch, warp_physics
from jtrust.environments.compact import compact
from jtrust.environments.warp_physics import OVERFLOW, check_devices

pytestmark = pytest.mark.slow

# Room for the contacts of eight hoppers; by default there is some for thousands.
HOPPER = {"naconmax": 8 * 32}
# What runs a few times only need not be fast, but soon there.
QUICK = {"xla_backend_optimization_level": 0}


def named(name, **options):
    return jtrust.make_env(f"playground/{name}", backend="warp", **options)


def rollout(environment, keys, actions):
    """Under given actions [T, N, A]: (first states, last states, what was seen), the latter
    observations, rewards and overflows, [T, N, ...] each."""

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(actions):
        variation = batch.variations(environment, keys)
        states = batch.reset_states(environment, keys, variation)

        def step(episodes, action):
            episodes, outcome = batch.step(environment, episodes, action)
            seen = outcome.last_observation, outcome.reward, warp_physics.overflow(episodes.state)
            return episodes, seen

        episodes, seen = jax.lax.scan(step, batch.begin(states, variation), actions)
        return states, episodes.state, seen

    return run(actions)


def actions_for(environment, steps, count):
    size = getattr(environment, "action_size", None) or environment.action.size
    return jax.random.uniform(jax.random.key(1), (steps, count, size), minval=-1, maxval=1)


def iterate(trainer, iterations):
    """(state, [metrics of each iteration])."""
    state = trainer.init(jax.random.key(0))
    iterate = jax.jit(trainer.iterate).lower(state).compile(compiler_options=QUICK)
    metrics = []
    for _ in range(iterations):
        state, row = iterate(state)
        metrics.append(jax.device_get(row))
    return jax.device_get(state), metrics


@pytest.mark.nightly
def test_an_environment_trains_as_playground_gives_it():
    result = jtrust.train(
        registry.load("CartpoleBalance"), num_envs=4, unroll_length=8, total_steps=64, devices=1
    )
    assert (result.metrics["policy/kl"] > 0).all()
    assert not result.metrics["environment/nonfinite"].any()


@pytest.mark.parametrize(("make", "algorithm"), [
    pytest.param(
        lambda: named("CartpoleSwingup", episode_length=5), jtrust.NPG(), marks=pytest.mark.nightly,
    ),
    (lambda: named("PendulumSwingup"), jtrust.PPO()),
    pytest.param(
        lambda: jtrust.wrappers.action_repeat(named("ReacherEasy"), 2), jtrust.PPOPenalty(),
        marks=pytest.mark.nightly,
    ),
    (lambda: named("HopperStand", **HOPPER), jtrust.TRPO()),
], ids=lambda x: getattr(x, "name", ""))
def test_tasks_train_with_every_algorithm(make, algorithm):
    trainer = jtrust.make_trainer(make(), algorithm, num_envs=8, unroll_length=8, devices=1)
    _, metrics = iterate(trainer, 2)
    for row in metrics:
        # Some of these tasks pay nothing at first, and nothing is learned from that.
        assert (row["policy/kl"] > 0) == (row["policy/kl_limit"] > 0) == row["policy/accepted"]
        assert row["environment/nonfinite"] == 0 and row["value/loss"] > 0


def test_what_is_left_out_of_states_is_nothing_that_the_physics_reads():
    """To the last bit what MJX gives whose whole state is carried, with contacts."""
    env = registry.load("HopperStand", config_overrides=HOPPER)
    keys, actions = jax.random.split(jax.random.key(0), 8), actions_for(env, 25, 8)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def theirs(actions):
        def step(state, action):
            state = jax.vmap(env.step)(state, action)
            return state, (state.obs, state.reward)

        return jax.lax.scan(step, jax.vmap(env.reset)(keys), actions)

    whole, (observation, reward) = theirs(actions)
    assert whole.data._impl.nacon[0] > 0
    environment = compact(jtrust.describe(env, "hopper"))
    _, state, (our_observation, our_reward, lost) = rollout(environment, keys, actions)
    np.testing.assert_array_equal(our_observation, observation)
    np.testing.assert_allclose(our_reward, reward, rtol=1e-6, atol=1e-6)
    assert not lost.any()
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))  # noqa: E731
    assert size(state) < size(whole) / 20


@pytest.mark.nightly
def test_rewards_are_those_of_the_physics_in_jax():
    keys = jax.random.split(jax.random.key(0), 4)
    rewards = []
    for backend in ("jax", "warp"):
        environment = jtrust.make_env("playground/CartpoleSwingup", backend=backend)
        rewards.append(rollout(environment, keys, actions_for(environment, 25, 4))[-1][1])
    assert np.ptp(rewards[0]) > 1e-3
    np.testing.assert_allclose(*rewards, atol=1e-4)


def test_episodes_that_end_start_afresh():
    environment = compact(named("CartpoleSwingup", episode_length=3))
    keys = jax.random.split(jax.random.key(0), 8)
    starts = batch.reset_states(environment, jax.vmap(jax.random.fold_in, (0, None))(keys, 1))

    @jax.jit
    def run():
        def step(episodes, t):
            moved, outcome = batch.step(environment, episodes, jnp.ones((8, 1)))
            end = outcome.termination | outcome.truncation
            episodes = batch.restart(moved, starts, end, t)
            return episodes, (moved.observation, episodes.observation, episodes.length)

        begun = batch.begin(batch.reset_states(environment, keys))
        return jax.lax.scan(step, begun, jnp.arange(6))[1]

    moved, after, length = run()
    np.testing.assert_array_equal(length[:, 0], [1, 2, 0, 1, 2, 0])
    sorted_rows = lambda x: np.asarray(sorted(map(tuple, np.asarray(x))))  # noqa: E731
    for t in (2, 5):
        np.testing.assert_array_equal(sorted_rows(after[t]), sorted_rows(starts.obs))
    # What follows a restart follows from the start alone, and not from what was before.
    begun = batch.begin(starts)
    first, _ = jax.jit(lambda: batch.step(environment, begun, jnp.ones((8, 1))))()
    np.testing.assert_allclose(
        sorted_rows(moved[3]), sorted_rows(first.observation), rtol=1e-6, atol=1e-6
    )


@pytest.mark.nightly
def test_one_iteration_on_two_devices_is_that_on_one():
    after = []
    for devices in (1, 2):
        trainer = jtrust.make_trainer(
            named("CartpoleBalance", episode_length=6), jtrust.TRPO(), num_envs=16,
            unroll_length=8, devices=devices,
        )
        after.append(iterate(trainer, 1))
    (one, (metrics,)), (two, (other,)) = after
    np.testing.assert_allclose(metrics["policy/kl"], other["policy/kl"], rtol=1e-3)
    assert metrics["episode/count"] == other["episode/count"]
    for a, b in zip(jax.tree.leaves(one.policy), jax.tree.leaves(two.policy), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(
        one.episodes.state.obs, two.episodes.state.obs, rtol=1e-4, atol=1e-5
    )


@pytest.mark.nightly
def test_a_resumed_run_is_the_run_that_was_never_stopped(tmp_path):
    whole = jtrust.train(
        named("HopperStand", **HOPPER), jtrust.NPG(), num_envs=8, unroll_length=4,
        total_steps=32 * 4, run_dir=tmp_path / "run", checkpoint_every=2, devices=1,
    ).state
    shutil.rmtree(tmp_path / "run" / "128")  # as if killed before the last checkpoint
    resumed = jtrust.resume(tmp_path / "run", 32 * 4, devices=1).state
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("little", [{"naconmax": 1}, {"naconmax": 256, "njmax": 1}])
def test_contacts_that_find_no_room_are_told_of_in_the_state_alone(little, capfd):
    environment = compact(named("HopperStand", **little))
    keys = jax.random.split(jax.random.key(0), 8)
    _, state, (*_, lost) = rollout(environment, keys, actions_for(environment, 25, 8))
    assert lost.any() and state.info[OVERFLOW].dtype == bool
    assert capfd.readouterr().out == ""  # of kernels that are compiled nothing is said either


@pytest.mark.nightly
def test_contacts_that_find_no_room_are_counted_and_warned_of_once(tmp_path):
    class Notes:
        """A progress that remembers what it is told."""

        def __init__(self, *_):
            notes.append(self)
            self.said = []

        def note(self, text):
            self.said.append(text)

        def update(self, row): ...

        def close(self): ...

    notes = []
    result = jtrust.train(
        named("HopperStand", naconmax=64, njmax=1, episode_length=20), jtrust.NPG(), num_envs=8,
        unroll_length=16, total_steps=3 * 128, run_dir=tmp_path / "run", devices=1,
        make_progress=Notes,
    )
    lost = result.metrics["environment/overflow"]
    assert np.sum(lost > 0) > 1 and np.all(lost <= 128)
    (said,) = notes[0].said
    assert f"at {lost[lost > 0][0]:,} steps of iteration" in said and "njmax" in said
    with pytest.warns(UserWarning, match="of 4 episodes .*for want of room"):
        jtrust.evaluate(tmp_path / "run", episodes=4)


def test_room_for_contacts_is_an_option():
    environment = named("HopperStand", naconmax=17, njmax=19)
    assert environment.options == {"backend": "warp", "naconmax": 17, "njmax": 19}
    state = jax.eval_shape(environment.reset, jax.random.key(0))
    assert state.data._impl["efc__pos"].shape[0] in range(19, 32)


@pytest.mark.parametrize(("arguments", "says"), [
    ({"backend": "warp", "naconmax": -1}, "from 0 up"),
    ({"backend": "warp", "njmax": 2.5}, "int"),
    ({"backend": "jax", "njmax": 20}, "Warp's physics alone"),
    ({"naconmax": 20}, "Warp's physics alone"),
])
def test_options_that_will_not_do_are_answered_in_one_line(arguments, says):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        jtrust.make_env("playground/HopperStand", **arguments)
    assert "\n" not in str(caught.value)


def test_a_file_that_hides_warp_is_named(monkeypatch, tmp_path):
    (tmp_path / "warp.py").write_text("raise SystemExit('runs')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "warp")
    for name in ("playground/CartpoleBalance", "brax/ant"):
        with pytest.raises(jtrust.BadArgument, match=r"warp\.py hides the package") as caught:
            jtrust.make_env(name)
        assert "\n" not in str(caught.value)


def test_a_warp_that_is_not_installed_is_answered_in_one_line(monkeypatch, capfd):
    from mujoco.mjx import warp as mjx_warp

    monkeypatch.setattr(mjx_warp, "WARP_INSTALLED", False)
    assert main(["train", "playground/CartpoleBalance", "--backend", "warp"]) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "warp-lang" in said[0]


def test_a_device_that_warp_does_not_run_on_is_refused():
    class Device:
        platform = "tpu"

    environment = jtrust.wrappers.scale_reward(named("PendulumSwingup"), 0.5)
    check_devices(environment, jax.devices())
    with pytest.raises(jtrust.BadArgument, match="does not run on a tpu; use backend jax"):
        check_devices(environment, [Device()])
    check_devices(jtrust.make_env("playground/PendulumSwingup"), [Device()])


def heavier(model, keys):
    """Every cart its own mass."""
    scale = jax.vmap(lambda k: jax.random.uniform(k, minval=0.5, maxval=3.0))(keys)
    axes = jax.tree.map(lambda _: None, model)
    return (model.tree_replace({"body_mass": model.body_mass * scale[:, None]}),
            axes.tree_replace({"body_mass": 0}))


def test_every_environment_has_its_own_model_as_under_playgrounds_wrapper():
    from mujoco_playground._src import wrapper

    environment = compact(named("CartpoleBalance", randomizer=heavier))
    keys = jax.random.split(jax.random.key(0), 4)
    theirs = wrapper.BraxDomainRandomizationVmapWrapper(
        registry.load("CartpoleBalance"), lambda model: heavier(model, keys)
    )

    @jax.jit
    def their_rollout(actions):
        def step(state, action):
            state = theirs.step(state, action)
            return state, state.obs

        return jax.lax.scan(step, theirs.reset(keys), actions)[1]

    actions = jnp.ones((10, 4, 1))
    ours = rollout(environment, keys, actions)[-1][0]
    np.testing.assert_allclose(ours, their_rollout(actions), rtol=1e-5, atol=1e-6)
    assert len(np.unique(np.asarray(ours)[-1, :, -1].round(4))) == 4


def test_what_warps_worlds_share_cannot_be_randomised():
    def randomizer(model, keys):
        return model.tree_replace({"opt.impratio": jnp.ones(len(keys))}), None

    with pytest.raises(jtrust.BadArgument, match=r"opt\.impratio.*cannot differ") as caught:
        named("CartpoleBalance", randomizer=randomizer)
    assert "\n" not in str(caught.value)


@pytest.fixture
def go1_models(monkeypatch, tmp_path):
    """A tetrahedron in place of each of the robot's meshes, of which the physics reads none."""
    from mujoco_playground._src import mjx_env

    assets = tmp_path / "menagerie" / "unitree_go1" / "assets"
    assets.mkdir(parents=True)
    corners = np.float32([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
    stl = bytes(80) + struct.pack("<I", 4) + b"".join(
        np.zeros(3, np.float32).tobytes() + corners[list(face)].tobytes() + bytes(2)
        for face in ((0, 2, 1), (0, 1, 3), (0, 3, 2), (1, 2, 3))
    )
    for name in ("trunk", "hip", "thigh_mirror", "calf", "thigh"):
        (assets / f"{name}.stl").write_bytes(stl)
    monkeypatch.setattr(mjx_env, "MENAGERIE_PATH", tmp_path / "menagerie")


@pytest.mark.nightly
def test_a_robot_walks_as_in_mujoco_and_trains(go1_models, tmp_path):
    import mujoco

    environment = named(
        "Go1JoystickFlatTerrain", naconmax=256, domain_randomization=True, episode_length=20,
        # So much that a robot that stumbles about is paid something, which it mostly is not.
        **{"reward_config.scales.tracking_lin_vel": 100.0},
    )
    result = jtrust.train(
        environment, jtrust.TRPO(damping=0.1), num_envs=8, unroll_length=8, total_steps=64,
        devices=1,
    )
    assert (result.metrics["policy/kl"] > 0).all()
    assert not result.metrics["environment/nonfinite"].any()

    # Against MuJoCo itself, on its feet, without noise or randomisation.
    env = registry.load("Go1JoystickFlatTerrain", config_overrides={"naconmax": 256})
    plain, keys = compact(jtrust.describe(env, "go1")), jax.random.split(jax.random.key(0), 4)
    state, after, (*_, lost) = rollout(plain, keys, jnp.zeros((4, 4, 12)))
    assert not lost.any()
    data = mujoco.MjData(env.mj_model)
    data.qpos, data.qvel = state.data.qpos[0], state.data.qvel[0]
    data.ctrl = env._default_pose
    mujoco.mj_step(env.mj_model, data, 4 * env.n_substeps)
    assert data.ncon > 0
    np.testing.assert_allclose(after.data.qpos[0], data.qpos, atol=2e-3)


@pytest.mark.parametrize("within_reset", [
    True, pytest.param(False, marks=pytest.mark.nightly),
])
def test_an_environment_of_ones_own_takes_steps_of_warps_physics(within_reset):
    import mujoco
    from mujoco import mjx

    model = mujoco.MjModel.from_xml_string("""
      <mujoco><worldbody><geom type="plane" size="2 2 1"/>
      <body pos="0 0 0.3"><freejoint/><geom size="0.1" mass="1"/></body></worldbody></mujoco>""")

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class State:
        data: mjx.Data
        obs: jax.Array
        reward: jax.Array
        done: jax.Array

    class Ball:
        action_size = 1

        def __init__(self):
            self.model = mjx.put_model(model, impl="warp")
            self.data = self.make_data()

        def make_data(self):
            return mjx.make_data(model, impl="warp", naconmax=64, njmax=32)

        def reset(self, key):
            data = self.make_data() if within_reset else self.data
            push = jax.random.uniform(key, (2,))
            return self.state(data.replace(qvel=data.qvel.at[:2].set(push)))

        def step(self, state, action):
            data = state.data.replace(qfrc_applied=state.data.qfrc_applied.at[0].set(action[0]))
            for _ in range(20):
                data = mjx.step(self.model, data)
            return self.state(data)

        def state(self, data):
            return State(data, jnp.concatenate([data.qpos, data.qvel]), data.qpos[0], 0.0)

    environment = compact(jtrust.describe(Ball(), "ball"))
    actions = actions_for(environment, 10, 4)
    keys = jax.random.split(jax.random.key(0), 4)
    states, _, (observation, *_) = rollout(environment, keys, actions)
    data = mujoco.MjData(model)
    data.qvel[:] = states.obs[2, 7:]
    for action, seen in zip(np.asarray(actions[:, 2]), observation[:, 2], strict=True):
        data.qfrc_applied[0] = action[0]
        mujoco.mj_step(model, data, 20)
        np.testing.assert_allclose(seen[:3], data.qpos[:3], atol=2e-3)
    assert data.ncon == 1
