"""One precision of all that the networks compute, whatever the device does to other products."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms import Batch
from jtrust.distributions import DiagonalGaussian
from tests.conftest import Point
from tests.doubles import products_rounded_as_on_a_tpu

pytestmark = pytest.mark.slow

ALGORITHMS = [jtrust.TRPO(), jtrust.NPG(), jtrust.PPO(), jtrust.PPOPenalty()]
STD = 0.05
# A policy that has settled: where a deviation is small, rounding is a large part of a KL.
SETTLED = jtrust.NetworkConfig(initial_std=STD + 1e-6, min_std=STD)


class OwnPolicy(nn.Module):
    """A network of a user's own, which says nothing of precision."""

    @nn.compact
    def __call__(self, x):
        x = nn.tanh(nn.Dense(32)(x))
        x = nn.tanh(nn.Dense(32)(x))
        mean = nn.Dense(1)(x)
        log_std = self.param("log_std", nn.initializers.constant(float(np.log(STD))), (1,))
        return DiagonalGaussian(mean, log_std)


class Pushed(Point):
    """A point whose physics multiplies matrices, at the precision that the device likes."""

    def step(self, state, action):
        rotation = jnp.eye(2) @ jnp.stack([state.position, action[0]])
        return super().step(dataclasses.replace(state, position=rotation[0]), action)


def lively(params, key):
    """Parameters whose means differ between states, as those of a trained policy do."""
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return structure.unflatten([
        x + 0.3 * jax.random.normal(k, x.shape) if x.ndim == 2 else x
        for x, k in zip(leaves, keys, strict=True)
    ])


def means_in_float64(params, x):
    """A tanh network's outputs, by numpy alone."""
    layers = params["params"].get("mlp", params["params"])
    names = sorted(layers, key=lambda n: {"input": "A", "output": "z"}.get(n, n))
    names = [n for n in names if isinstance(layers[n], dict)]
    x = np.asarray(x, np.float64)
    for i, name in enumerate(names):
        layer = {k: np.asarray(v, np.float64) for k, v in layers[name].items()}
        x = x @ layer["kernel"] + layer["bias"]
        x = np.tanh(x) if i < len(names) - 1 else x
    return x


def kl_in_float64(old, new, x, raw):
    """Mean KL of two Gaussian policies of one deviation per dimension, by numpy alone."""
    first, second = (np.float64(std_of(p, raw)) for p in (old, new))
    difference = means_in_float64(old, x) - means_in_float64(new, x)
    z = (difference**2 + first**2) / (2 * second**2)
    return np.mean(np.sum(z - 0.5 + np.log(second / first), axis=-1))


def std_of(params, raw):
    log_std = np.asarray(params["params"]["log_std"], np.float64)
    return np.exp(log_std) if raw else STD + np.exp(log_std)


def batch_of(steps=16, envs=64):
    keys = jax.random.split(jax.random.key(5), 4)
    observation = 2.0 * jax.random.normal(keys[0], (steps, envs, 2))
    advantage = jax.random.normal(keys[2], (steps, envs))
    return Batch(
        observation, observation, 0.5 * jax.random.normal(keys[1], (steps, envs, 1)),
        (advantage - advantage.mean()) / advantage.std(), observation[..., 0],
        jax.random.split(keys[3], envs),
    )


@pytest.mark.parametrize(("algorithm", "own"), [
    *((algorithm, None) for algorithm in ALGORITHMS), (jtrust.TRPO(), OwnPolicy()),
], ids=lambda x: getattr(x, "name", "own" if x else "ours"))
def test_the_kl_is_measured_as_float64_has_it_where_products_are_rounded(algorithm, own):
    changes = {"target_kl": 1e-4} if hasattr(algorithm, "target_kl") else {}
    algorithm = dataclasses.replace(algorithm, max_kl=1e-4, entropy_cost=0.0, **changes)
    trainer = jtrust.make_trainer(
        Point(), algorithm, num_envs=64, unroll_length=16, devices=1, network=SETTLED,
        policy_network=own,
    )
    batch = batch_of()
    with products_rounded_as_on_a_tpu():
        params = trainer.init(jax.random.key(0)).policy
        part = params if own is None else params["module"]
        part = lively(part, jax.random.key(1))
        params = part if own is None else {**params, "module": part}
        new, _, metrics = jax.jit(
            lambda p, b: algorithm.update(algorithm.init(p), p, trainer.policy_network, b)
        )(params, batch)
    assert metrics["policy/accepted"] and metrics["policy/kl"] > 1e-6
    if own is not None:
        params, new = params["module"], new["module"]
    x = np.asarray(batch.observation).reshape(-1, 2)
    exact = kl_in_float64(params, new, x, raw=own is not None)
    assert metrics["policy/kl"] == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("own", [None, OwnPolicy()], ids=["ours", "own"])
def test_the_fold_is_exact_and_the_value_the_same_where_products_are_rounded(own):
    algorithm = jtrust.TRPO()
    trainer = jtrust.make_trainer(
        Point(), algorithm, num_envs=64, unroll_length=16, devices=1, network=SETTLED,
        policy_network=own,
    )
    with products_rounded_as_on_a_tpu():
        state = trainer.init(jax.random.key(0))
        policy = lively(state.policy["params"] if own is None else state.policy["module"],
                        jax.random.key(1))
        policy = {"params": policy} if own is None else {**state.policy, "module": policy}
        state = dataclasses.replace(state, policy=policy)
        drifts = []
        for _ in range(4):
            state, metrics = trainer.iterate(state)
            drifts.append(float(metrics["observation/drift_kl"]))
    # The first batch's statistics are taken as they come.
    assert 0 <= max(drifts[1:]) < 0.01 * algorithm.max_kl
    assert "policy/precision_kl" not in metrics


def products(jaxpr, inside=""):
    """(name stack, precision) of every product of matrices in a program."""
    for equation in jaxpr.eqns:
        where = f"{inside}/{equation.source_info.name_stack}"
        if equation.primitive.name in ("dot_general", "conv_general_dilated"):
            yield where, equation.params["precision"]
        for value in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner, where)


FULL = (jax.lax.Precision.HIGHEST,) * 2


@pytest.mark.parametrize(("algorithm", "squash"), [
    *((algorithm, False) for algorithm in ALGORITHMS), (jtrust.PPO(), True),
], ids=lambda x: getattr(x, "name", x))
def test_every_product_but_those_of_physics_is_full_float32(algorithm, squash):
    trainer = jtrust.make_trainer(
        Pushed(), algorithm, num_envs=16, unroll_length=8, devices=1,
        network=jtrust.NetworkConfig(squash=squash),
    )
    with jax.default_matmul_precision("bfloat16"):  # a user's own choice for all else
        state = jax.eval_shape(trainer.init, jax.random.key(0))
        found = list(products(jax.make_jaxpr(trainer.iterate)(state).jaxpr))
    physics = [p for where, p in found if "physics" in where]
    others = [p for where, p in found if "physics" not in where]
    assert physics and FULL not in physics
    assert len(others) > 10 and set(others) == {FULL}


def test_less_than_full_is_a_choice_that_is_kept_and_told(tmp_path):
    network = jtrust.NetworkConfig(precision="default", initial_std=STD + 1e-6, min_std=STD)
    with products_rounded_as_on_a_tpu():
        result = jtrust.train(
            Point(), jtrust.TRPO(), num_envs=16, unroll_length=8, total_steps=384, devices=1,
            network=network, run_dir=tmp_path / "run",
        )
    assert json.loads((tmp_path / "run/config.json").read_text())["network"]["precision"] == (
        "default"
    )
    told = result.metrics["policy/precision_kl"]
    assert len(told) == 3 and np.all(told > 1e-8)
    jaxpr = jax.make_jaxpr(lambda x: jtrust.load_policy(tmp_path / "run").distribution(
        result.policy.params, result.policy.statistics, x).mean)(jnp.zeros(2)).jaxpr
    assert {p for _, p in products(jaxpr)} <= {None, (jax.lax.Precision.DEFAULT,) * 2}
    with pytest.raises(jtrust.BadArgument, match="precision='half'"):
        jtrust.NetworkConfig(precision="half")


def test_a_loaded_policy_acts_in_full_float32(tmp_path):
    result = jtrust.train(
        Point(), jtrust.TRPO(), num_envs=16, unroll_length=8, total_steps=256, devices=1,
        run_dir=tmp_path / "run",
    )
    x = jax.random.normal(jax.random.key(0), (64, 2))
    plain = np.asarray(result.policy(x))
    with products_rounded_as_on_a_tpu():
        policy = jtrust.load_policy(tmp_path / "run")
        np.testing.assert_allclose(policy(x), plain, rtol=0, atol=1e-6)
