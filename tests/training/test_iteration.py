"""One iteration: pure, compiled once, the same on any number of shards, the policy kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import jtrust
from jtrust.training.batch_statistics import standardize
from jtrust.training.estimation import true_next_values
from jtrust.training.mesh import default_num_envs
from jtrust.training.rollout import Trajectory

pytestmark = pytest.mark.slow

ALGORITHMS = [jtrust.TRPO(), jtrust.NPG(), jtrust.PPO(), jtrust.PPOPenalty(),
              jtrust.PPOPenalty(adaptive=False), jtrust.TRPL()]
COMMON_KEYS = {
    "episode/return", "episode/length", "policy/kl", "policy/kl_max", "policy/kl_predicted",
    "policy/accepted", "policy/step_scale", "policy/entropy", "policy/surrogate_gain", "value/loss",
    "value/explained_variance", "observation/drift_kl", "environment/nonfinite",
}
OWN_KEYS = {
    "trpo": {"policy/cg_residual"}, "npg": {"policy/cg_residual"},
    "ppo": {"policy/clip_fraction"}, "ppo-kl": {"policy/kl_coefficient"},
    "trpl": {"policy/projected", "policy/kl_max_limit"},
}


def by_name(algorithm):
    fixed = "" if getattr(algorithm, "adaptive", True) else "-fixed"
    return algorithm.name + fixed


def by_day(*names):
    """All algorithms, those that are not named at night alone."""
    return pytest.mark.parametrize("algorithm", [
        pytest.param(a, id=by_name(a), marks=[pytest.mark.nightly] * (by_name(a) not in names))
        for a in ALGORITHMS
    ])


def run(trainer, key, iterations):
    iterate = jax.jit(trainer.iterate, donate_argnums=0)
    state, rows = trainer.init(key), []
    for _ in range(iterations):
        state, metrics = iterate(state)
        rows.append(jax.device_get(metrics))
    return state, rows, iterate


def host(tree):
    return jax.tree.map(
        lambda x: np.asarray(
            jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        ),
        tree,
    )


@by_day("trpo", "ppo", "trpl")
def test_every_algorithm_learns_reports_the_same_metrics_and_keeps_its_trust_region(
    point, algorithm
):
    trainer = jtrust.make_trainer(point, algorithm, num_envs=64, unroll_length=32, devices=1)
    _, rows, iterate = run(trainer, jax.random.key(0), 25)
    assert set(rows[0]) >= COMMON_KEYS | OWN_KEYS[algorithm.name]
    failures = [int(r["episode/count"]) for r in rows]
    assert failures[-1] < failures[1] / 3  # it learns to stay near 0
    for row in rows:
        assert row["policy/kl"] <= algorithm.max_kl
        assert row["observation/drift_kl"] < 0.1 * algorithm.max_kl
        assert (row["policy/step_scale"] > 0) == bool(row["policy/accepted"])
    assert iterate._cache_size() == 1


@by_day("trpo", "ppo")
def test_eight_shards_and_one_make_the_same_iteration(point, algorithm):
    results = []
    for devices in (1, 8):
        trainer = jtrust.make_trainer(
            point, algorithm, num_envs=64, unroll_length=32, devices=devices
        )
        state, rows, _ = run(trainer, jax.random.key(3), 1)
        assert len(state.episodes.length.sharding.device_set) == devices
        results.append((host(state), rows))
    (one, one_rows), (eight, eight_rows) = results
    before = host(jtrust.make_trainer(
        point, algorithm, num_envs=64, unroll_length=32, devices=1
    ).init(jax.random.key(3)))
    for field in ("policy", "value"):
        a, b, start = (ravel_pytree(getattr(x, field))[0] for x in (one, eight, before))
        # As vectors: what conjugate gradients or Adam make of rounding is theirs to share out.
        assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(a - start)
    # The same experience, environment by environment.
    np.testing.assert_allclose(one.episodes.state.obs, eight.episodes.state.obs, atol=1e-4)
    for a, b in zip(one_rows, eight_rows, strict=True):
        assert a["episode/count"] == b["episode/count"]
        np.testing.assert_allclose(a["policy/kl"], b["policy/kl"], rtol=1e-2, atol=1e-7)


def test_time_limits_are_spread_over_the_environments(point):
    """Else every batch would hold one and the same stretch of all episodes."""

    class Endless(type(point)):
        def step(self, state, action):
            new = super().step(state, action)
            return dataclasses.replace(new, done=jnp.zeros_like(new.done))

    environment = jtrust.describe(Endless(), "endless", episode_length=32)
    for devices in (1, 4):
        trainer = jtrust.make_trainer(
            environment, jtrust.TRPO(), num_envs=64, unroll_length=8, devices=devices
        )
        _, rows, _ = run(trainer, jax.random.key(0), 9)
        # In the first 32 steps the two without a head start end; later 2 of 64 end at each step.
        assert [r["episode/count"] for r in rows][:3] == [0, 0, 0]
        assert [r["episode/count"] for r in rows][4:] == [16, 16, 16, 16, 16]
        assert all(r["episode/length"] == 32 for r in rows[3:])


def test_iterate_holds_no_host_callback(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), num_envs=8, unroll_length=8, devices=1)
    text = str(jax.make_jaxpr(trainer.iterate)(trainer.init(jax.random.key(0))))
    assert "while" in text and "scan" in text  # the jaxpr does show the inner programs
    for word in ("callback", "infeed", "outfeed", "debug_print"):
        assert word not in text


def test_iterate_moves_nothing_between_host_and_device(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), num_envs=8, unroll_length=8, devices=1)
    iterate = jax.jit(trainer.iterate)
    state = trainer.init(jax.random.key(0))
    with jax.transfer_guard("disallow"):
        state, _ = iterate(state)
        state, metrics = iterate(state)
    assert np.isfinite(metrics["policy/kl"])


def test_seeds_and_hyperparameters_are_vmapped(point):
    def learn(key, max_kl):
        algorithm = jtrust.TRPO(max_kl=max_kl)
        trainer = jtrust.make_trainer(point, algorithm, num_envs=16, unroll_length=8, devices=1)
        return jax.lax.scan(lambda s, _: trainer.iterate(s), trainer.init(key), length=3)[1]

    limits = jnp.asarray([0.001, 0.01, 0.1])
    metrics = jax.jit(jax.vmap(learn))(jax.random.split(jax.random.key(0), 3), limits)
    assert metrics["policy/kl"].shape == (3, 3)
    taken = np.asarray(metrics["policy/kl"])
    assert np.all(taken <= np.asarray(limits)[:, None])
    assert np.all(taken[2] > taken[0])


def test_iterate_is_pure_and_the_key_decides(point):
    trainer = jtrust.make_trainer(point, jtrust.PPO(), num_envs=16, unroll_length=8, devices=1)
    iterate = jax.jit(trainer.iterate)
    state = trainer.init(jax.random.key(0))
    first, second = iterate(state)[0], iterate(state)[0]
    jax.tree.map(np.testing.assert_array_equal, host(first), host(second))
    other = iterate(trainer.init(jax.random.key(1)))[0]
    assert not np.array_equal(first.episodes.state.obs, other.episodes.state.obs)


@pytest.mark.nightly
def test_the_policy_does_what_it_did_after_its_normaliser_has_moved(point):
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), num_envs=64, unroll_length=8, devices=1)
    state, _, _ = run(trainer, jax.random.key(0), 3)
    # A batch unlike any before: the statistics change by a factor of about ten.
    batch = 30.0 + 20.0 * jax.random.normal(jax.random.key(1), (8, 64, 2))
    targets = 100.0 * jax.random.normal(jax.random.key(2), (8, 64))

    def update(state):
        return trainer.preparation.update_statistics(state, batch, targets)

    from jtrust.training.mesh import REPLICATED, per_shard

    new, metrics = per_shard(update, trainer.mesh, REPLICATED, REPLICATED)(state)
    drift = metrics["observation/drift_kl"]
    x = jax.random.normal(jax.random.key(3), (100, 2))
    before = trainer.policy(state.policy, state.observation_statistics, x)
    after = trainer.policy(new.policy, new.observation_statistics, x)
    moved = trainer.policy(state.policy, new.observation_statistics, x)
    assert np.max(before.kl_divergence(after)) < 1e-8
    assert np.mean(before.kl_divergence(moved)) > 1e-4  # without folding it would have moved
    assert 0 <= drift < 1e-6
    np.testing.assert_allclose(trainer.values(state, x), trainer.values(new, x), atol=1e-3)


def test_next_values_are_those_of_the_true_last_observation():
    flags = jnp.asarray([[False], [True], [False]])
    zero = jnp.zeros((3, 1))
    trajectory = Trajectory(
        observation=zero, action=zero, reward=zero, termination=~flags & False, truncation=flags,
        truncation_value=jnp.where(flags, 7.0, 0.0),
    )
    values = jnp.asarray([[1.0], [2.0], [3.0]])
    found = true_next_values(trajectory, values, jnp.asarray([4.0]))
    np.testing.assert_array_equal(found, [[2.0], [7.0], [4.0]])


def test_advantages_are_standardised_over_all_shards():
    from jtrust.training.mesh import SHARDED, make_mesh, per_shard

    x = np.random.default_rng(0).normal(5.0, 3.0, (64, 16)).astype(np.float32)
    mesh = make_mesh(8, 64)
    found = np.asarray(jax.jit(per_shard(standardize, mesh, SHARDED, SHARDED))(x))
    np.testing.assert_allclose(found, (x - x.mean()) / x.std(), rtol=1e-4, atol=1e-5)


def test_a_nonfinite_environment_is_restarted_and_kept_out_of_everything(point):
    class Broken(type(point)):
        def step(self, state, action):
            state = super().step(state, action)
            bad = jnp.where(jnp.abs(state.position) > 0.6, jnp.nan, 1.0)
            return dataclasses.replace(state, obs=state.obs * bad, reward=state.reward * bad)

    trainer = jtrust.make_trainer(Broken(), jtrust.TRPO(), num_envs=64, unroll_length=32, devices=1)
    state, rows, _ = run(trainer, jax.random.key(0), 3)
    assert sum(r["environment/nonfinite"] for r in rows) > 0
    for leaf in jax.tree.leaves(host((state.policy, state.value, state.observation_statistics,
                                      state.target_statistics, state.episodes))):
        assert np.all(np.isfinite(leaf))
    assert all(r["policy/accepted"] for r in rows)


def test_a_nonfinite_update_leaves_policy_and_values_as_they_were(point):
    class Cliff(type(point)):
        """Finite rewards so large that their variance is not."""

        def step(self, state, action):
            state = super().step(state, action)
            return dataclasses.replace(state, reward=state.reward * 1e30)

    for algorithm in (jtrust.TRPO(), jtrust.PPO()):
        trainer = jtrust.make_trainer(Cliff(), algorithm, num_envs=16, unroll_length=8, devices=1)
        state, _, _ = run(trainer, jax.random.key(0), 2)
        assert np.all(np.isfinite(jax.flatten_util.ravel_pytree(host(state.policy))[0]))
        assert np.all(np.isfinite(jax.flatten_util.ravel_pytree(host(state.value))[0]))


@pytest.mark.parametrize(("change", "name"), [
    (dict(num_envs=0), "num_envs"), (dict(num_envs=2.5), "num_envs"),
    (dict(num_envs=12, devices=8), "num_envs"), (dict(unroll_length=-1), "unroll_length"),
    (dict(algorithm="trpo"), "algorithm"), (dict(devices=99), "devices"),
    (dict(devices=()), "devices"), (dict(devices="cpu"), "devices"),
    (dict(algorithm=jtrust.PPO(minibatches=7)), "minibatches"),
    (dict(algorithm=jtrust.TRPO(value_minibatches=48)), "value_minibatches"),
    (dict(network=(64, 64)), "network"), (dict(env=object()), "env"),
])
def test_what_will_not_do_is_refused_by_name(point, change, name):
    arguments = dict(
        env=point, algorithm=jtrust.TRPO(), num_envs=16, unroll_length=8, devices=1
    ) | change
    with pytest.raises(jtrust.BadArgument) as caught:
        jtrust.make_trainer(arguments.pop("env"), arguments.pop("algorithm"), **arguments)
    assert caught.value.name == name


def test_environments_in_blocks_go_as_all_at_once(point, monkeypatch):
    from jtrust.training import rollout

    trainer = jtrust.make_trainer(point, jtrust.TRPO(), num_envs=128, unroll_length=64, devices=1)
    assert trainer.collection.block_size(trainer.init(jax.random.key(0)).episodes.state) == 128
    whole, whole_rows, _ = run(trainer, jax.random.key(0), 3)
    monkeypatch.setattr(rollout, "_BLOCK_BYTES", 40 * 20)
    assert trainer.collection.block_size(whole.episodes.state) == 32
    blocks, blocks_rows, _ = run(trainer, jax.random.key(0), 3)
    np.testing.assert_allclose(whole.episodes.state.obs, blocks.episodes.state.obs, atol=1e-3)
    np.testing.assert_array_equal(whole.episodes.length, blocks.episodes.length)
    for a, b in zip(whole_rows, blocks_rows, strict=True):
        assert a["episode/count"] == b["episode/count"]
        np.testing.assert_allclose(a["policy/kl"], b["policy/kl"], rtol=1e-2)
    assert whole_rows[-1]["episode/count"] > 0


@pytest.mark.parametrize(("count", "size", "block"), [
    (256, 540, 256), (2048, 1100, 128), (1024, 12_000, 1024), (96, 4000, 48), (30, 10**6, 30),
    (7 * 32, 3000, 56),
])
def test_blocks_divide_the_environments_and_fit_the_cache(count, size, block):
    from jtrust.training.rollout import cache_block

    assert cache_block(count, size) == block


def test_a_loop_that_reads_nothing_gets_only_a_few_iterations_ahead_of_cpu_devices(point):
    """With some 30 under way, XLA's collectives between CPU devices wait for each other."""
    trainer = jtrust.make_trainer(point, jtrust.TRPO(), num_envs=16, unroll_length=8, devices=2)
    state = trainer.init(jax.random.key(0))
    kls = []
    for _ in range(40):
        state, metrics = trainer.iterate(state)
        kls.append(metrics["policy/kl"])
        assert all(kl.is_ready() for kl in kls[:-8])
    assert int(state.iteration) == 40


def test_the_number_of_environments_follows_the_device_where_none_is_given(point):
    class Device:
        def __init__(self, platform):
            self.platform = platform

    assert default_num_envs([Device("cpu")] * 8) == 64
    assert default_num_envs([Device("gpu")]) == default_num_envs([Device("tpu")] * 256) == 4096
    assert default_num_envs([Device("gpu")] * 6) == 4128
    assert jtrust.make_trainer(point, jtrust.TRPO()).num_envs == 64
