"""Dictionaries of observations: the policy reads one, the value function another."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.environments import batch
from jtrust.environments.base import describe
from jtrust.runs.config import RunConfig
from jtrust.runs.matching import check_environment
from jtrust.training.mesh import REPLICATED, STATE_SPEC, per_shard
from jtrust.training.random_keys import environment_keys

pytestmark = pytest.mark.slow


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seen:
    inner: object
    obs: dict
    reward: jax.Array
    done: jax.Array


class Asymmetric:
    """A Brax environment whose velocities the policy does not see."""

    def __init__(self, name="inverted_pendulum", positions=2, **options):
        from brax import envs

        self.env = envs.get_environment(name, **options)
        self.action_size, self.positions = self.env.action_size, positions

    def reset(self, key):
        return self._see(self.env.reset(key))

    def step(self, state, action):
        return self._see(self.env.step(state.inner, action))

    def _see(self, state):
        whole = 10 * state.obs + 3  # two scales, so that the statistics must differ
        obs = {"state": state.obs[: self.positions], "privileged_state": whole,
               "pixels": jnp.zeros((4, 4))}
        return Seen(state, obs, state.reward, state.done)


def host(tree):
    return jax.tree.map(
        lambda x: np.asarray(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        ), tree,
    )


@pytest.mark.parametrize("algorithm", [
    jtrust.TRPO(), pytest.param(jtrust.PPO(), marks=pytest.mark.nightly),
], ids=lambda a: a.name)
def test_each_network_reads_its_own_and_has_its_own_statistics(algorithm):
    environment = describe(Asymmetric(), "asymmetric", episode_length=20)
    trainer = jtrust.make_trainer(environment, algorithm, num_envs=16, unroll_length=8, devices=1)
    state, _ = trainer.iterate(trainer.init(jax.random.key(0)))
    state, metrics = trainer.iterate(state)
    assert state.policy["params"]["mlp"]["input"]["kernel"].shape[0] == 2
    assert state.value["params"]["mlp"]["input"]["kernel"].shape[0] == 4
    moments = state.observation_statistics
    assert set(moments.mean) == {"state", "privileged_state"}
    np.testing.assert_allclose(
        moments.mean["privileged_state"][:2], 10 * moments.mean["state"] + 3, rtol=1e-3, atol=1e-3
    )
    np.testing.assert_allclose(
        moments.variance["privileged_state"][:2], 100 * moments.variance["state"], rtol=1e-2
    )
    assert metrics["policy/accepted"] and metrics["observation/drift_kl"] < 1e-5
    # The policy hears nothing of what is hidden from it; the value function does.
    observation = host(state.episodes.observation)
    other = {**observation, "privileged_state": observation["privileged_state"] + 5}
    act = lambda x: trainer.policy(state.policy, moments, x).mode()  # noqa: E731
    np.testing.assert_array_equal(act(observation), act(other))
    assert np.abs(trainer.values(state, observation) - trainer.values(state, other)).max() > 0


@pytest.mark.nightly
def test_a_critic_that_sees_velocities_learns_better_than_a_blind_one():
    """inverted_pendulum without velocities for the policy; four seeds side by side."""
    returns, explained = {}, {}
    for key in ("privileged_state", "state"):
        environment = describe(Asymmetric(backend="spring"), "hidden", value_observation=key)
        trainer = jtrust.make_trainer(
            environment, jtrust.TRPO(), num_envs=64, unroll_length=32, devices=1
        )

        def learn(key, trainer=trainer):
            state = trainer.init(key)
            return jax.lax.scan(lambda s, _: trainer.iterate(s), state, length=100)[1]

        metrics = jax.jit(jax.vmap(learn))(jax.vmap(jax.random.key)(jnp.arange(4)))
        returns[key] = np.asarray(metrics["episode/return"])[:, -10:].mean()
        explained[key] = np.asarray(metrics["value/explained_variance"])[:, -10:].mean()
    assert returns["privileged_state"] > 1.1 * returns["state"]
    assert explained["privileged_state"] > explained["state"] + 0.1


class Small:
    """As quick to compile as there are; the value function also sees the way that is left."""

    action_size = 1

    def reset(self, key):
        return self._state(jax.random.uniform(key, minval=-0.5, maxval=0.5), jnp.int32(0))

    def step(self, state, action):
        return self._state(state.obs["state"][0] + 0.3 * action[0], state.inner + 1)

    def _state(self, x, t):
        obs = {"state": jnp.stack([x, x**2]), "privileged_state": jnp.stack([x, t / 10, x - t]),
               "pixels": jnp.zeros((3, 3))}
        return Seen(t, obs, jnp.exp(-(x**2)), jnp.abs(x) > 2)


SIZES = dict(num_envs=16, unroll_length=8, devices=1)


def test_only_what_is_read_is_gathered_and_nothing_twice():
    for options, keys, same in (
        ({}, {"state", "privileged_state"}, False),
        ({"value_observation": "state"}, {"state"}, True),
    ):
        environment = describe(Small(), "small", **options)
        trainer = jtrust.make_trainer(environment, jtrust.TRPO(), **SIZES)
        seen = []

        def collected_and_prepared(state):
            keys = environment_keys(state, 16)
            state, trajectory, _ = trainer.collection(state, keys)  # noqa: B023
            estimates = trainer.estimation(state, trajectory)  # noqa: B023
            _, made, _ = trainer.preparation(state, trajectory, estimates, keys)  # noqa: B023
            shapes = {k: x.shape for k, x in trajectory.observation.items()}
            seen.append((shapes, made.observation is made.value_observation))  # noqa: B023
            return made.advantage

        program = per_shard(
            collected_and_prepared, trainer.mesh, (STATE_SPEC,), REPLICATED
        )
        jax.eval_shape(program, jax.eval_shape(trainer.init, jax.random.key(0)))
        shapes, shared = seen[0]
        assert set(shapes) == keys and shapes["state"] == (8, 16, 2) and shared == same


def test_a_value_that_is_not_finite_in_any_of_them_is_seen():
    class Sick(Small):
        def step(self, state, action):
            new = super().step(state, action)
            bad = jnp.where(action[0] > 0.5, jnp.nan, 0.0)
            hidden = new.obs["privileged_state"] + bad
            return dataclasses.replace(new, obs={**new.obs, "privileged_state": hidden})

    environment = describe(Sick(), "sick")
    episodes = batch.begin(batch.reset_states(environment, jax.random.split(jax.random.key(0), 2)))
    _, outcome = batch.step(environment, episodes, jnp.asarray([[0.0], [1.0]]))
    np.testing.assert_array_equal(outcome.nonfinite, [False, True])
    np.testing.assert_array_equal(outcome.last_observation["privileged_state"][1],
                                  episodes.observation["privileged_state"][1])
    assert set(outcome.last_observation) == {"state", "privileged_state"}


def test_a_run_is_kept_resumed_exactly_and_its_policy_takes_either(tmp_path):
    environment = describe(Small(), "small", episode_length=30)
    whole = jtrust.train(environment, total_steps=512, **SIZES)
    part = jtrust.train(environment, total_steps=256, run_dir=tmp_path / "run", **SIZES)
    resumed = jtrust.resume(tmp_path / "run", total_steps=512, env=environment, devices=1)
    jax.tree.map(np.testing.assert_array_equal, host(whole.state), host(resumed.state))
    assert part.policy.key == "state"

    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["observation"] == {
        "dictionary": {"state": {"shape": [2], "dtype": "float32"},
                       "privileged_state": {"shape": [3], "dtype": "float32"}},
        "policy": "state", "value": "privileged_state",
    }
    policy = jtrust.load_policy(tmp_path / "run")
    vector = jnp.asarray([[0.1, 0.01], [0.3, 0.09]])
    action = policy(vector)
    assert action.shape == (2, 1)
    np.testing.assert_array_equal(policy({"state": vector, "privileged_state": None}), action)
    np.testing.assert_array_equal(whole.policy(vector), action)
    with pytest.raises(jtrust.BadArgument, match="'state'"):
        policy({"privileged_state": jnp.zeros(3)})
    with pytest.raises(jtrust.BadArgument, match="last axis of 2"):
        policy(jnp.zeros(3))
    assert jtrust.evaluate(tmp_path / "run", env=environment, episodes=3)["episodes"] == 3

    other = describe(Small(), "small", policy_observation="privileged_state")
    stored = RunConfig.from_json((tmp_path / "run" / "config.json").read_text(), "run")
    with pytest.raises(jtrust.BadArgument, match="observations"):
        check_environment(stored, other)


@pytest.mark.parametrize(("change", "options", "says"), [
    ({}, {"policy_observation": "sate"}, "state"),
    ({}, {"value_observation": "pixels"}, "pixels.*one vector"),
    ({"state": None}, {}, "policy_observation.*choose one of pixels, privileged_state"),
    ({"state": jnp.zeros((2, 2))}, {}, r"env.obs\['state'\].*\(2, 2\)"),
    ({"state": {"deep": jnp.zeros(2)}}, {}, "one vector"),
])
def test_what_cannot_be_read_is_refused_by_name(change, options, says):
    class Other(Small):
        def reset(self, key):
            state = super().reset(key)
            obs = {k: v for k, v in {**state.obs, **change}.items() if v is not None}
            return dataclasses.replace(state, obs=obs)

        def step(self, state, action):
            return state

    with pytest.raises(jtrust.BadArgument, match=says):
        describe(Other(), "other", **options)
    if not change:
        assert describe(Other(), "other").policy_key == "state"
