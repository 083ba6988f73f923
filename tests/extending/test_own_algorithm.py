"""A new algorithm, from public parts alone: it trains, is saved and resumed."""

import dataclasses
import json
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jtrust
from jtrust.algorithms.surrogate import Surrogate, policy_metrics
from jtrust.cli import main
from jtrust.hyperparameters import hyperparameters

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=32, unroll_length=16, devices=1)
STEPS = 32 * 16


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class A2C(jtrust.Algorithm):
    """One step of Adam along the policy gradient, made where it stays in the trust region."""

    name: ClassVar[str] = "a2c"

    learning_rate: float = 0.01

    def init(self, params):
        return optax.adam(self.learning_rate).init(params)

    def step(self, state, params, distribution_fn, batch, limits, axis_name=None):
        surrogate = Surrogate(params, distribution_fn, batch, self.entropy_cost, axis_name)
        down = jax.tree.map(jnp.negative, surrogate.gradient())
        updates, new_state = optax.adam(self.learning_rate).update(down, state)
        measured = surrogate.at(optax.apply_updates(params, updates))
        good = limits.hold(measured) & jnp.isfinite(measured["gain"])
        keep = lambda new, old: jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)  # noqa: E731
        scale = good.astype(jnp.float32)
        metrics = policy_metrics(
            keep(measured, surrogate.unmoved()), measured["kl"], good, scale, limits
        )
        return keep(optax.apply_updates(params, updates), params), keep(new_state, state), metrics


def trainer_of(point, **others):
    return jtrust.make_trainer(point, A2C(**others), **SMALL)


def test_it_learns(point):
    trainer = trainer_of(point, max_kl=1.0)
    iterate = jax.jit(lambda s: jax.lax.scan(lambda s, _: trainer.iterate(s), s, length=80))
    _, metrics = iterate(trainer.init(jax.random.key(0)))
    returns = np.asarray(metrics["episode/return"])
    assert np.mean(returns[-10:]) > 3 * np.mean(returns[5:15])
    assert np.all(np.asarray(metrics["policy/kl"]) <= 1.0)


def test_a_step_out_of_the_trust_region_is_not_made(point):
    trainer = trainer_of(point, max_kl=1e-9)
    start = trainer.init(jax.random.key(0))
    state, _ = trainer.iterate(start)
    before = state.policy
    state, metrics = trainer.iterate(state)
    assert metrics["policy/accepted"] == metrics["policy/kl"] == 0
    np.testing.assert_array_equal(
        before["params"]["log_std"], state.policy["params"]["log_std"]
    )


def test_a_run_of_it_is_kept_and_resumed_exactly(tmp_path, point):
    whole = jtrust.train(trainer_of(point), total_steps=4 * STEPS)
    jtrust.train(trainer_of(point), total_steps=2 * STEPS, run_dir=tmp_path / "r")
    resumed = jtrust.resume(tmp_path / "r", 4 * STEPS, trainer=trainer_of(point))
    for part in ("policy", "value", "policy_optimizer"):
        jax.tree.map(
            np.testing.assert_array_equal, getattr(whole.state, part), getattr(resumed.state, part)
        )
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["algorithm"] == "a2c" and config["hyperparameters"]["learning_rate"] == 0.01
    assert config["hyperparameters"]["discount"] == 0.995
    x = jax.random.normal(jax.random.key(0), (5, 2))
    np.testing.assert_array_equal(jtrust.load_policy(tmp_path / "r")(x), whole.policy(x))


def test_what_cannot_be_made_again_is_asked_for(tmp_path, point, capsys):
    jtrust.train(trainer_of(point), total_steps=STEPS, run_dir=tmp_path / "r")
    with pytest.raises(jtrust.BadArgument, match=r"resume\(RUN_DIR, trainer="):
        jtrust.resume(tmp_path / "r", 2 * STEPS, env=point)
    other = jtrust.make_trainer(point, jtrust.TRPO(), **SMALL)
    with pytest.raises(jtrust.BadArgument, match="in the run it is a2c"):
        jtrust.resume(tmp_path / "r", 2 * STEPS, trainer=other)
    assert main(["resume", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


class Mine(jtrust.Trainer):
    """A trainer of a user's own; here with nothing of its own."""


def test_a_run_goes_on_with_the_trainer_that_it_was_begun_with_and_no_other(tmp_path, point):
    own = jtrust.make_trainer(point, jtrust.TRPO(), **SMALL)
    own = Mine(**{f.name: getattr(own, f.name) for f in dataclasses.fields(own)})
    jtrust.train(own, total_steps=STEPS, run_dir=tmp_path / "r")
    with pytest.raises(jtrust.BadArgument, match="a trainer of your own, Mine"):
        jtrust.resume(tmp_path / "r", 2 * STEPS, env=point)
    for change, name in (
        (dict(network=jtrust.NetworkConfig(min_std=0.1)), "network"),
        (dict(num_envs=64), "num_envs"),
    ):
        other = dataclasses.replace(own, **change)
        with pytest.raises(jtrust.BadArgument, match="in the run it is") as caught:
            jtrust.resume(tmp_path / "r", 2 * STEPS, trainer=other)
        assert caught.value.name == name
    with pytest.raises(jtrust.BadArgument, match="the trainer has its own"):
        jtrust.resume(tmp_path / "r", 2 * STEPS, trainer=own, env=point)
    changed = dataclasses.replace(own, gae=jtrust.GAE(discount=0.5))
    jtrust.resume(tmp_path / "r", 2 * STEPS, trainer=changed)
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["hyperparameters"]["discount"] == 0.5 and config["trainer"] == "Mine"


@pytest.mark.nightly
def test_one_that_is_entered_among_the_algorithms_is_made_again(tmp_path, point, monkeypatch):
    from jtrust.algorithms import ALGORITHMS

    monkeypatch.setitem(ALGORITHMS, "a2c", A2C)
    trainer = jtrust.make_trainer(point, A2C(), gae=jtrust.GAE(discount=0.9), **SMALL)
    jtrust.train(trainer, total_steps=STEPS, run_dir=tmp_path / "r")
    resumed = jtrust.resume(tmp_path / "r", 2 * STEPS, env=point, devices=1)
    assert resumed.trainer.algorithm == trainer.algorithm and resumed.trainer.gae.discount == 0.9


@pytest.mark.parametrize("call", [
    lambda point: jtrust.train(point, steps=3),
    lambda point: jtrust.plan(point, target="cpu", steps=1),
    lambda point: jtrust.train(trainer_of(point), steps=None),
])
def test_a_misspelt_argument_is_told_as_python_does(point, call):
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        call(point)


@pytest.mark.parametrize(("options", "name"), [
    (dict(algorithm=jtrust.TRPO()), "algorithm"), (dict(num_envs=8), "num_envs"),
    (dict(network=jtrust.NetworkConfig()), "network"),
])
def test_a_trainer_has_its_own_and_takes_no_others(point, options, name):
    with pytest.raises(jtrust.BadArgument, match="the trainer has its own") as caught:
        jtrust.train(trainer_of(point), total_steps=STEPS, **options)
    assert caught.value.name == name


def test_a_trainer_and_what_it_is_made_of_give_the_same_run(tmp_path, point):
    """Settings of advantages and values as objects, and by an algorithm's own names."""
    by_name = jtrust.TRPO(discount=0.9, value_epochs=1, value_lambda=0.8)
    apart = jtrust.make_trainer(
        point, jtrust.TRPO(), gae=jtrust.GAE(discount=0.9),
        value_fit=jtrust.ValueFit(epochs=1, td_lambda=0.8), **SMALL
    )
    one = jtrust.train(point, by_name, total_steps=2 * STEPS, run_dir=tmp_path / "1", **SMALL)
    two = jtrust.train(apart, total_steps=2 * STEPS, run_dir=tmp_path / "2")
    jax.tree.map(np.testing.assert_array_equal, one.state.policy, two.state.policy)
    texts = [(tmp_path / n / "config.json").read_text() for n in "12"]
    assert texts[0] == texts[1]
    for wrong in (dict(gae=0.9), dict(value_fit=jtrust.GAE())):
        with pytest.raises(jtrust.BadArgument, match=r"must be a jtrust\.(GAE|ValueFit)"):
            jtrust.make_trainer(point, jtrust.TRPO(), **wrong)
