"""One rollout in several parts: the steps, the whole move, and what the deviation may take."""

import dataclasses
import functools
import json
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jtrust
from jtrust.algorithms import Batch
from jtrust.algorithms.surrogate import Limits
from jtrust.hyperparameters import hyperparameters

pytestmark = pytest.mark.slow

ALGORITHMS = [jtrust.TRPO, jtrust.NPG, jtrust.PPO, jtrust.PPOPenalty]
STEPS, ENVS, SIZE, ACTIONS = 8, 16, 3, 2


class LinearPolicy:
    """A function of parameters that says which of them are a deviation."""

    def __call__(self, params, observation):
        mean = observation @ params["kernel"]
        return jtrust.distributions.DiagonalGaussian(mean, params["log_std"]).broadcast()

    def deviation(self, params):
        return {"kernel": False, "log_std": True}


linear_policy = LinearPolicy()


@functools.cache
def start():
    """A policy, and a batch that it gathered; better are actions along the first observation."""
    keys = jax.random.split(jax.random.key(1), 4)
    params = {
        "kernel": 0.3 * jax.random.normal(keys[0], (SIZE, ACTIONS)),
        "log_std": jnp.asarray([-0.2, 0.1]),
    }
    observation = jax.random.normal(keys[1], (STEPS, ENVS, SIZE))
    action = linear_policy(params, observation).sample(keys[2])
    worth = action[..., 0] * observation[..., 0] - 0.5 * jnp.sum(action**2, -1)
    advantage = (worth - worth.mean()) / worth.std()
    batch = Batch(
        observation, observation, action, advantage, observation[..., 0],
        jax.random.split(keys[3], ENVS),
    )
    return params, batch


def updated(algorithm, batch=None):
    params, gathered = start()
    return algorithm.update(
        algorithm.init(params), params, linear_policy, batch or gathered
    )


def divergences(new):
    """KL of means and of deviations from the starting policy, by their closed forms in numpy."""
    params, batch = start()
    observation = np.asarray(batch.observation, np.float64).reshape(-1, SIZE)
    mean, new_mean = (observation @ np.asarray(p["kernel"], np.float64) for p in (params, new))
    std, new_std = (np.exp(np.asarray(p["log_std"], np.float64)) for p in (params, new))
    of_means = (((mean - new_mean) / new_std) ** 2 / 2).sum(-1).mean()
    of_deviations = (np.log(new_std / std) + (std / new_std) ** 2 / 2 - 0.5).sum()
    return of_means, of_deviations


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_parts_of_the_divergence_are_reported_and_add_up(kind):
    new, _, metrics = updated(kind(max_kl=0.05, value_rounds=1))
    assert metrics["policy/accepted"] == 1
    of_means, of_deviations = divergences(new)
    assert min(of_means, of_deviations) > 1e-6
    assert metrics["policy/kl_mean"] == pytest.approx(of_means, rel=1e-3)
    assert metrics["policy/kl_std"] == pytest.approx(of_deviations, rel=1e-3)
    assert metrics["policy/kl"] == pytest.approx(of_means + of_deviations, rel=1e-3)


def test_a_divergence_is_its_parts_by_integration_and_all_choice_for_a_categorical():
    old = jtrust.distributions.DiagonalGaussian(jnp.asarray([0.3]), jnp.asarray([0.2]))
    new = jtrust.distributions.DiagonalGaussian(jnp.asarray([-0.4]), jnp.asarray([-0.3]))
    x = np.linspace(-12, 12, 200_001)
    p, q = stats.norm(0.3, np.exp(0.2)), stats.norm(-0.4, np.exp(-0.3))
    beside = stats.norm(0.3, np.exp(-0.3))  # the new deviation around the old mean
    whole = np.trapezoid(p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), x)
    deviation = np.trapezoid(p.pdf(x) * (p.logpdf(x) - beside.logpdf(x)), x)
    of_mean, of_deviation = old.kl_parts(new)
    assert of_deviation == pytest.approx(deviation, rel=1e-4)
    assert of_mean + of_deviation == pytest.approx(whole, rel=1e-4)
    choices = [jtrust.distributions.Categorical(jnp.asarray(x)) for x in ([0.1, 0.5], [0.7, -0.2])]
    of_choice, none = choices[0].kl_parts(choices[1])
    assert of_choice == choices[0].kl_divergence(choices[1]) > 0 and none == 0


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("kind", ALGORITHMS)
def test_the_deviation_keeps_to_a_limit_of_its_own_and_the_means_go_on(kind, parts):
    free, _, unlimited = updated(kind(max_kl=0.05, parts=parts))
    new, _, metrics = updated(kind(max_kl=0.05, max_kl_std=1e-4, parts=parts))
    of_means, of_deviations = divergences(new)
    assert divergences(free)[1] > 2e-4 and "policy/kl_std_limit" not in unlimited
    assert 1e-5 < of_deviations <= 1.0001e-4
    assert of_means > 0.5 * divergences(free)[0]
    assert metrics["policy/kl_std_limit"] == pytest.approx(1e-4)
    assert metrics["policy/kl"] <= metrics["policy/kl_limit"] == pytest.approx(0.05)


def test_a_deviation_for_each_state_keeps_to_its_limit_too():
    def policy(params, observation):
        return jtrust.distributions.DiagonalGaussian(
            observation @ params["kernel"], observation @ params["deviation"]
        )

    params, batch = start()
    params = {"kernel": params["kernel"], "deviation": 0.0 * params["kernel"]}
    for kind in ALGORITHMS:
        algorithm = kind(max_kl=0.05, max_kl_std=1e-4)
        new, _, metrics = algorithm.update(algorithm.init(params), params, policy, batch)
        old, moved = (policy(p, batch.observation) for p in (params, new))
        of_deviation = (0.5 * jnp.expm1(2 * (old.log_std - moved.log_std))
                        - (old.log_std - moved.log_std)).sum(-1).mean()
        assert metrics["policy/accepted"] == 1
        assert 0 < of_deviation <= 1.0001e-4
        assert metrics["policy/kl_std"] == pytest.approx(float(of_deviation), rel=1e-2)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_parts_are_steps_from_where_the_one_before_ended(kind):
    """The same by a plain loop: environments 0, 4, 8 .., then 1, 5, 9 .., and so on."""
    params, batch = start()
    algorithm = kind(max_kl=0.05, parts=4).settled(ENVS, STEPS)
    new, _, metrics = updated(algorithm)
    state, proximal = algorithm.init(params), params
    behaviour = linear_policy(params, batch.observation).log_prob(batch.action)
    limits = algorithm.limits_of_parts(Limits(jnp.float32(0.05), None))
    for i in range(4):
        mine = lambda x, i=i: x[:, i::4]  # noqa: E731
        part = dataclasses.replace(
            batch, observation=mine(batch.observation), action=mine(batch.action),
            advantage=mine(batch.advantage), behaviour_log_prob=mine(behaviour),
            environment_keys=batch.environment_keys[i::4],
        )
        proximal, state, _ = algorithm.step(state, proximal, linear_policy, part, limits)
    whole = sum(divergences(proximal))
    assert metrics["policy/step_scale"] == 1 or whole > 0.05
    if metrics["policy/step_scale"] == 1:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), new, proximal)
    assert metrics["policy/kl"] == pytest.approx(sum(divergences(new)), rel=1e-3)
    assert metrics["policy/kl"] <= 0.05


def test_a_move_that_is_too_long_as_a_whole_is_drawn_back_along_its_line():
    params, _ = start()

    class Bold(jtrust.TRPO):
        """Every part may move by the limit of the whole: four in one direction go too far."""

        def limits_of_parts(self, limits):
            return limits

    hyperparameters(Bold)
    new, _, metrics = updated(Bold(max_kl=0.02, parts=4))
    assert 0 < metrics["policy/step_scale"] < 1
    assert 0.005 < sum(divergences(new)) <= 0.02
    moved = jax.tree.map(lambda n, p: np.ravel(n - p), new, params)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(moved))


def test_importance_weights_have_the_surrogate_see_the_policy_that_acted():
    """At another policy the gradient's expectation is that of the one which gathered the batch."""
    from jtrust.algorithms.surrogate import Surrogate

    params, batch = start()
    other = jax.tree.map(lambda x: x + 0.4, params)
    behaviour = linear_policy(params, batch.observation).log_prob(batch.action)
    surrogate = Surrogate(
        other, linear_policy, dataclasses.replace(batch, behaviour_log_prob=behaviour), 0.0, None
    )
    ratio = np.exp(np.asarray(
        linear_policy(other, batch.observation).log_prob(batch.action) - behaviour
    ))
    assert ratio.max() > 2.5

    weight = np.minimum(ratio, 2.0)  # cut off, and then a constant

    def by_hand(p):
        old, new = (linear_policy(x, batch.observation).log_prob(batch.action) for x in (other, p))
        return jnp.mean(weight * jnp.exp(new - old) * batch.advantage)

    wanted = jax.grad(by_hand)(other)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        surrogate.gradient(), wanted,
    )


def test_a_batch_that_may_not_move_the_policy_does_not_in_parts_either():
    params, batch = start()
    for kind in ALGORITHMS:
        algorithm = kind(parts=4)
        new, _, metrics = updated(algorithm, dataclasses.replace(batch, trust=jnp.float32(0)))
        assert metrics["policy/accepted"] == 0 and metrics["policy/kl"] == 0
        jax.tree.map(np.testing.assert_array_equal, new, params)


def test_numbers_by_size_fill_in_for_what_was_not_given_and_nothing_else():
    small, large = jtrust.TRPO().settled(64, 64), jtrust.TRPO().settled(4096, 64)
    assert (small.parts, small.value_rounds, small.value_solver) == (1, 1, "adam")
    assert large.value_rounds > 1 and jtrust.PPO().settled(4096, 64).parts > 1
    assert large.value_solver == "gauss-newton"
    assert large.value_lambda == 1 and small.value_lambda is None
    assert jtrust.PPO().settled(4096, 64).minibatches == 8
    assert large.max_kl > small.max_kl == 0.01
    given = jtrust.PPO(max_kl=0.3, parts=2, value_rounds=1, epochs=3, value_solver="adam")
    settled = given.settled(4096, 64)
    assert (settled.max_kl, settled.parts, settled.value_rounds, settled.epochs) == (0.3, 2, 1, 3)
    assert settled.value_solver == "adam" and settled.settled(64, 64) == settled
    # What is given is kept though it be the same as a default; and it may come through a pickle.
    same = pickle.loads(pickle.dumps(jtrust.TRPO(max_kl=0.01))).settled(4096, 64)
    assert same.max_kl == 0.01 and same.value_rounds == large.value_rounds
    assert jtrust.TRPO().max_kl == 0.01 and json.loads(json.dumps(jtrust.PPO().epochs)) == 5
    assert type(small.max_kl) is type(large.max_kl) is float
    assert jtrust.PPOPenalty(max_kl=0.05).settled(4096, 64).target_kl < 0.05


def test_parts_that_do_not_divide_the_environments_are_refused(point):
    make = functools.partial(jtrust.make_trainer, point, unroll_length=64)
    with pytest.raises(jtrust.BadArgument, match=r"parts=4: must divide the environments.* 3"):
        make(jtrust.TRPO(parts=4), num_envs=9, devices=1)
    assert make(jtrust.PPO(), num_envs=999, devices=1).algorithm.parts == 3
    with pytest.raises(jtrust.BadArgument, match=r"devices=8: cannot share the 4 parts"):
        make(jtrust.PPO(value_minibatches=1), num_envs=8 * 101, devices=8)
