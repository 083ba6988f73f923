"""Episodes recorded: the ones that `evaluate` counts, and all that a picture needs of them."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import jtrust
from jtrust.deploy.clips import choose_clips
from jtrust.deploy.recording import record
from jtrust.deploy.scene import find_scene, pose
from jtrust.runs.evaluate import run_episodes
from tests.conftest import Point
from tests.deploy.slider import Slider


@pytest.fixture(scope="module")
def policy(run_dir):
    return jtrust.load_policy(run_dir)


def described(env, length=30):
    return jtrust.describe(env, "Slider", episode_length=length)


@pytest.mark.parametrize("stochastic", [False, True])
def test_returns_are_those_of_evaluate(policy, stochastic):
    environment = described(Slider())
    found = record(policy, environment, 6, seed=3, stochastic=stochastic)
    counted = run_episodes(policy, environment, 6, 3, stochastic)
    np.testing.assert_array_equal(found.returns, counted["return"])
    np.testing.assert_array_equal(found.lengths, counted["length"])
    assert len(set(found.returns.tolist())) == 6


def test_an_episode_is_what_a_plain_loop_makes_of_it(policy):
    env = Slider()
    found = record(policy, described(env), 3, observe=True)
    for episode in range(3):
        position = found.poses["qpos"][0, episode]
        for t in range(found.lengths[episode]):
            seen = np.concatenate([position, position**2])
            np.testing.assert_allclose(found.observations[t, episode], seen, atol=1e-6)
            action = np.asarray(policy(seen))
            np.testing.assert_allclose(found.actions[t, episode], action, atol=1e-5)
            position = position + 0.02 + 0.05 * action
            np.testing.assert_allclose(found.poses["qpos"][t + 1, episode], position, atol=1e-5)
            assert found.rewards[t, episode] == pytest.approx(1 - abs(position[0]), abs=1e-5)
        assert found.rewards[: found.lengths[episode], episode].sum() == pytest.approx(
            found.returns[episode], rel=1e-5
        )


def test_what_is_not_kept_counts_all_the_same(policy):
    environment = described(Slider())
    whole, part = (record(policy, environment, 4, most_steps=n) for n in (None, 5))
    assert len(part.rewards) == 5 and len(part.poses["qpos"]) == 6
    np.testing.assert_array_equal(part.returns, whole.returns)
    np.testing.assert_array_equal(part.poses["qpos"], whole.poses["qpos"][:6])


def test_measures_are_of_the_state_before_each_step(policy):
    def double(factor, observation):
        return factor * observation[:, 0]

    found = record(policy, described(Slider()), 2, measures={"twice": (double, jnp.float32(2))})
    np.testing.assert_allclose(
        found.measures["twice"], 2 * found.poses["qpos"][: len(found.rewards), :, 0], rtol=1e-6
    )


def test_an_episode_ends_for_the_picture_where_the_simulator_breaks(policy):
    found = record(policy, described(Slider(breaks_above=0.31)), 8)
    assert found.nonfinite.any()
    for episode in np.flatnonzero(found.nonfinite):
        steps = found.steps_of(episode)
        assert np.isfinite(found.poses["qpos"][: steps + 1, episode]).all()
        assert steps == found.lengths[episode] - 1  # the last step is the one that broke it
    if (~found.nonfinite).any():
        assert all(clip.which != "broken" for clip in choose_clips(found))


def test_all_broken_shows_the_one_that_went_on_the_longest(policy):
    found = record(policy, described(Slider(breaks_above=-0.25)), 8, seed=1)
    assert found.nonfinite.all()
    (clip,) = choose_clips(found)
    assert clip.which == "broken" and found.lengths[clip.episode] == found.lengths.max()
    nothing = record(policy, described(Slider(breaks_above=-5.0)), 4)
    with pytest.raises(jtrust.BadArgument, match="nothing to draw"):
        choose_clips(nothing)


def test_best_median_and_worst_are_in_order(policy):
    found = record(policy, described(Slider()), 9)
    clips = choose_clips(found)
    order = np.sort(found.returns)
    assert [clip.which for clip in clips] == ["best", "median", "worst"]
    assert [np.float32(clip.total) for clip in clips] == [order[8], order[4], order[0]]
    for clip in clips:
        assert clip.returns[-1] == pytest.approx(clip.total, rel=1e-5)
        np.testing.assert_array_equal(clip.poses["qpos"], found.poses["qpos"][
            : clip.steps + 1, clip.episode
        ])
    assert [c.which for c in choose_clips(record(policy, described(Slider()), 2))] == [
        "best", "worst"
    ]
    assert [c.which for c in choose_clips(record(policy, described(Slider()), 1))] == ["episode"]


def test_frames_go_by_the_clock(policy):
    (clip,) = choose_clips(record(policy, described(Slider(), 25), 1))
    for rate in (4, 10):
        shown = clip.frames(0.1, rate)
        assert shown[0] == 0 and shown[-1] <= clip.steps
        np.testing.assert_allclose(shown * 0.1, np.arange(len(shown)) / rate, atol=0.05 + 1e-6)
        assert len(shown) == int(clip.steps * 0.1 * rate + 1e-6) + 1


def test_wrapped_environments_have_the_model_and_the_time_of_their_own():
    env = described(Slider())
    wrapped = jtrust.wrappers.frame_stack(jtrust.wrappers.action_repeat(env, 3), 2)
    scene = find_scene(wrapped)
    assert scene.model.nq == 1 and scene.dt == pytest.approx(0.3)
    state = wrapped.reset(jax.random.key(0))
    np.testing.assert_array_equal(pose(state)["qpos"], state.inner.inner.qpos)


def test_no_model_is_no_scene_and_a_model_of_another_size_is_refused():
    assert find_scene(jtrust.describe(Point(), "Point")) is None

    class Other(Slider):
        def _state(self, qpos):
            return super()._state(jnp.concatenate([qpos, qpos])[:1])

        @property
        def mj_model(self):
            return mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>")

        @mj_model.setter
        def mj_model(self, value): ...

    with pytest.raises(jtrust.BadArgument, match="of 0 coordinates, and its states have 1"):
        find_scene(jtrust.describe(Other(), "Other"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend", "most"), [
    ("hopper", "spring", 0.05), ("inverted_double_pendulum", "generalized", 1e-4),
])
def test_mujoco_puts_braxs_bodies_where_brax_has_them(name, backend, most):
    environment = jtrust.make_env(f"brax/{name}", backend=backend)
    model = find_scene(environment).model
    data = mujoco.MjData(model)
    state = jax.jit(environment.reset)(jax.random.key(0))
    step = jax.jit(environment.step)
    for _ in range(3):
        state = step(state, 0.5 * jnp.ones(environment.action.size))
        data.qpos[:] = pose(state)["qpos"]
        mujoco.mj_kinematics(model, data)
        np.testing.assert_allclose(data.xpos[1:], state.pipeline_state.x.pos, atol=most)
