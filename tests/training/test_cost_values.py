"""Values, advantages and sums of costs with limits, beside plain loops over the same rollout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import jtrust
from jtrust.environments import describe
from jtrust.training import collection
from jtrust.training.costs import _judged, _of
from jtrust.training.mesh import AXIS, REPLICATED, STATE_SPEC, per_shard
from jtrust.training.random_keys import environment_keys
from tests.environments.test_told_costs import Costly
from tests.training.test_value_rounds import DISCOUNT, Ring, RingState, true_values

SMALL = jtrust.NetworkConfig(policy_layers=(16,), value_layers=(16,))
LIMITS = {"far": 2.0, "push": 1.0}
ALGORITHMS = {
    "cpo": jtrust.CPO, "trpo-lagrangian": jtrust.TRPOLagrangian,
    "ppo-lagrangian": jtrust.PPOLagrangian,
}


class Fails(Costly):
    """It fails beyond ±0.6, so that episodes end in both ways."""

    def step(self, state, action):
        state = super().step(state, action)
        return dataclasses.replace(state, done=(jnp.abs(state.position) > 0.6).astype(jnp.float32))


def trainer_of(algorithm, devices=1, num_envs=8, length=7, kind=Fails, **options):
    return jtrust.make_trainer(
        describe(kind(), "costly", episode_length=length), algorithm, num_envs=num_envs,
        unroll_length=16, devices=devices, network=SMALL, **options,
    )


def iterated(trainer, iterations):
    state = trainer.init(jax.random.key(0))
    for _ in range(iterations):
        state, metrics = trainer.iterate(state)
    return state, metrics


def plain_gae(cost, values, after, termination, ends, discount, decay):
    """Backwards over time, one environment at a time."""
    advantages = np.zeros_like(cost)
    for n in range(cost.shape[1]):
        following = 0.0
        for t in reversed(range(cost.shape[0])):
            bootstrap = 0.0 if termination[t, n] else after[t, n]
            delta = cost[t, n] + discount * bootstrap - values[t, n]
            following = delta + (0.0 if ends[t, n] else discount * decay * following)
            advantages[t, n] = following
    return advantages


@pytest.mark.slow
def test_cost_advantages_are_those_of_a_plain_loop():
    trainer = trainer_of(jtrust.CPO(cost_limits=LIMITS, discount=0.9, gae_lambda=0.8), length=4)
    state, _ = iterated(trainer, 3)
    by_time = PartitionSpec(None, AXIS)

    def judged(state):
        keys = environment_keys(state, trainer.collection.envs_per_device)
        state, trajectory, _ = trainer.collection(state, keys)
        estimates = trainer.estimation(state, trajectory)
        after, batch, _ = trainer.preparation(state, trajectory, estimates, keys)
        after, batch, metrics = trainer.constraints(state, after, trajectory, batch)
        of_costs = lambda o: jax.vmap(  # noqa: E731
            lambda one: trainer.values(_of(one, state), o)
        )(_judged(state.costs))
        final = of_costs(state.episodes.observation)
        return trajectory, batch.costs, of_costs(trajectory.observation), final, metrics

    trajectory, costs, values, final, metrics = jax.device_get(jax.jit(per_shard(
        judged, trainer.mesh, (STATE_SPEC,),
        (by_time, REPLICATED, REPLICATED, REPLICATED, REPLICATED),
    ))(state))
    ends = trajectory.termination | trajectory.truncation
    assert trajectory.termination.sum() > 5 and trajectory.truncation.sum() > 5
    assert np.any(trajectory.truncation_cost_values[trajectory.truncation] != 0)
    for k, name in enumerate(("far", "push")):
        after = np.concatenate([values[k][1:], final[k][None]])
        last = trajectory.truncation_cost_values[..., k]
        found = plain_gae(
            trajectory.costs[name], values[k], np.where(trajectory.truncation, last, after),
            trajectory.termination, ends, 0.9, 0.8,
        )
        np.testing.assert_allclose(
            costs.advantage[k], found - found.mean(), rtol=1e-3, atol=1e-4
        )
        length = float(costs.episode_length)
        assert costs.estimate[k] == pytest.approx(
            length * trajectory.costs[name].mean(), rel=1e-4
        )
        assert metrics[f"cost/{name}/estimate"] == pytest.approx(costs.estimate[k])


@pytest.mark.slow
@pytest.mark.nightly
def test_the_estimated_sum_is_that_of_the_episodes_that_end():
    """Of a policy that stays as it is: a rate times a length is a mean sum."""
    trainer = trainer_of(jtrust.CPO(cost_limits=LIMITS, max_kl=1e-9), num_envs=64)
    state, rows = trainer.init(jax.random.key(0)), []
    for _ in range(12):
        state, metrics = trainer.iterate(state)
        rows.append(jax.device_get(metrics))
    for name in LIMITS:
        ended = np.average(
            [r[f"cost/{name}"] for r in rows], weights=[r["episode/count"] for r in rows]
        )
        estimated = np.mean([r[f"cost/{name}/estimate"] for r in rows[2:]])
        assert estimated == pytest.approx(ended, rel=0.05)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CostlyRing(RingState):
    cost: jax.Array


class Tolls(Ring):
    """Leaving a place costs what it pays in the other ring, and pays nothing."""

    def _at(self, place, reward):
        state = super()._at(place, jnp.float32(0.0))
        return CostlyRing(state.place, state.obs, state.reward, state.done, reward)


@pytest.mark.nightly
def test_cost_values_in_rounds_are_those_of_bellmans_equation():
    trainer = jtrust.make_trainer(
        describe(Tolls(), "tolls", episode_length=10_000),
        jtrust.CPO(
            cost_limits={"cost": 1e6}, value_rounds=40, value_solver="gauss-newton",
            discount=DISCOUNT, gae_lambda=0.5, value_damping=1e-5, value_cg_iterations=20,
        ), num_envs=20, unroll_length=8, devices=1, network=SMALL,
    )
    state, metrics = iterated(trainer, 1)
    one = jax.tree.map(lambda x: x[0], _judged(state.costs))
    found = trainer.values(_of(one, state), jnp.eye(5))
    np.testing.assert_allclose(found, true_values(), atol=0.2)
    assert metrics["cost/cost/value_loss"] < 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "cpo", pytest.param("trpo-lagrangian", marks=pytest.mark.nightly),
    pytest.param("ppo-lagrangian", marks=pytest.mark.nightly),
])
def test_two_devices_are_one(name):
    one, other = (
        jax.device_get(iterated(trainer_of(ALGORITHMS[name](cost_limits=LIMITS), devices=n), 3))
        for n in (1, 2)
    )
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4)  # noqa: E731
    jax.tree.map(close, one[0].policy, other[0].policy)
    jax.tree.map(close, one[0].costs.value, other[0].costs.value)
    for key in one[1]:
        if key.startswith("cost/"):
            close(one[1][key], other[1][key])


@pytest.mark.slow
@pytest.mark.nightly
def test_truncations_valued_after_the_loop_as_on_an_accelerator_come_to_the_same(monkeypatch):
    algorithm = jtrust.CPO(cost_limits=LIMITS)
    _, at_once = iterated(trainer_of(algorithm), 3)
    monkeypatch.setattr(collection, "is_cpu", lambda mesh: False)
    _, after = iterated(trainer_of(algorithm), 3)
    for key in at_once:
        if key.startswith("cost/"):
            np.testing.assert_allclose(at_once[key], after[key], rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    pytest.param("cpo", marks=pytest.mark.nightly), "ppo-lagrangian",
])
def test_a_resumed_run_is_the_run_that_never_stopped(tmp_path, name):
    env = describe(Fails(), "costly", episode_length=7)
    options = dict(num_envs=8, unroll_length=16, network=SMALL, devices=1)
    algorithm = ALGORITHMS[name](cost_limits="far=1,push=0.5")
    whole = jtrust.train(env, algorithm, total_steps=128 * 6, **options)
    jtrust.train(
        env, algorithm, total_steps=128 * 3, run_dir=tmp_path / "run", **options
    )
    resumed = jtrust.resume(tmp_path / "run", 128 * 6, env=env, devices=1)
    first, second = (
        [np.asarray(x) for x in jax.tree.leaves((s.policy, s.policy_optimizer, s.costs))]
        for s in (whole.state, resumed.state)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    for key in ("cost/far", "cost/far/multiplier", "cost/push/estimate"):
        np.testing.assert_array_equal(whole.metrics[key][3:], resumed.metrics[key])
    found = jtrust.evaluate(tmp_path / "run", env=env, episodes=5)
    assert set(found["costs"]) == {"far", "push"}


@pytest.mark.nightly
def test_limits_may_differ_in_one_program_of_many_runs():
    env = describe(Fails(), "costly", episode_length=7)
    options = dict(num_envs=8, unroll_length=16, network=SMALL)
    limits = [{"far": 2.0, "push": 0.5}, {"far": 2.0, "push": 3.0}]
    found = jtrust.train_many(
        env, jtrust.TRPOLagrangian(cost_limits=limits[0]), seeds=1, total_steps=128 * 3,
        cost_limits=limits, **options,
    )
    for member, limit in zip(found.members, limits, strict=True):
        assert member.metrics["cost/push/limit"][-1] == pytest.approx(limit["push"])
        alone = jtrust.train(
            env, jtrust.TRPOLagrangian(cost_limits=limit), total_steps=128 * 3, seed=member.seed,
            devices=1, **options,
        )
        for key in ("cost/push/multiplier", "policy/kl", "cost/far/estimate"):
            np.testing.assert_allclose(member.metrics[key], alone.metrics[key], rtol=2e-3)


def test_without_limits_costs_are_reported_and_nothing_else():
    trainer = trainer_of(jtrust.TRPO())
    state, metrics = iterated(trainer, 2)
    assert state.costs == () and trainer.constraints is None
    assert {k for k in metrics if k.startswith("cost/")} == {"cost/far", "cost/push"}
    assert metrics["cost/push"] > 0


@pytest.mark.slow
def test_a_limit_out_of_reach_is_said_once_and_training_goes_on(monkeypatch, tmp_path):
    from jtrust.training import costs

    class Always(Costly):
        def told(self, state, push):
            state = super().told(state, push)
            return dataclasses.replace(state, cost={"one": jnp.float32(1.0)})

    monkeypatch.setattr(costs, "_PATIENCE", 4)
    said = []

    class Notes:
        def update(self, row): ...

        def note(self, text):
            said.append(text)

        def close(self): ...

    result = jtrust.train(
        describe(Always(), "always", episode_length=7), jtrust.CPO(cost_limits={"one": 2.0}),
        num_envs=8, unroll_length=16, network=SMALL, devices=1, total_steps=128 * 9,
        make_progress=lambda *_: Notes(),
    )
    assert np.flatnonzero(result.metrics["cost/one/infeasible"])[0] <= 6
    warned = [text for text in said if text.startswith("warning: cost one")]
    assert len(warned) == 1 and "against 2" in warned[0]
    assert result.metrics["cost/one"][-1] == pytest.approx(7.0)


def test_what_does_not_go_together_is_refused_in_one_line(point):
    costly, bare = describe(Costly(), "costly"), describe(point, "point")
    for env, algorithm, said in (
        (bare, lambda: jtrust.CPO(cost_limits={"far": 1.0}), "point has none"),
        (costly, lambda: jtrust.CPO(), "far, push has none"),
        (costly, lambda: jtrust.CPO(cost_limits="far=1"), "push has none: such as far=25,push=25"),
        (costly, lambda: jtrust.PPOLagrangian(cost_limits="far=1,pusch=1"), "did you mean push"),
        (costly, lambda: jtrust.CPO(cost_limits="far"), "must be NAME=LIMIT"),
        (costly, lambda: jtrust.CPO(cost_limits="far=x"), "must be a number"),
        (costly, lambda: jtrust.CPO(cost_limits=3), "must be NAME=LIMIT"),
        (costly, lambda: jtrust.CPO(cost_limits={"far": -1.0}), "far=-1.0.*at least 0"),
        (costly, lambda: jtrust.CPO(cost_limits={"far": float("nan")}), "far=nan"),
        (costly, lambda: jtrust.CPO(cost_limits="far=1,push=1", parts=2), "must be 1"),
        (costly, lambda: jtrust.TRPOLagrangian(cost_limits="far=1,push=1", ki=-1), "ki=-1"),
    ):
        with pytest.raises(jtrust.BadArgument, match=said) as error:
            jtrust.make_trainer(env, algorithm(), num_envs=8, devices=1)
        assert "\n" not in str(error.value)


def test_a_policy_with_memory_is_refused(monkeypatch):
    from jtrust.networks.protocol import Memoryless

    monkeypatch.setattr(Memoryless, "initial_carry", lambda self, shape=(): jnp.zeros(3))
    with pytest.raises(jtrust.BadArgument, match="memory"):
        trainer_of(jtrust.CPO(cost_limits=LIMITS))


