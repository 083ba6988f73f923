"""Bad arguments from Python: each is refused by its name, with its value and what would do."""

import math

import jax
import jax.numpy as jnp
import pytest

import jtrust

NOT_POSITIVE = [0, -1, math.nan, math.inf, -math.inf, "0.1", None, True, 1e300]
NOT_WHOLE = [0, -1, 1.0, math.nan, "4", True, 10**12]
COUNTS = [
    (jtrust.TRPO, "cg_iterations"), (jtrust.TRPO, "max_backtracks"), (jtrust.PPO, "epochs"),
    (jtrust.NPG, "value_epochs"),
]
COUNTS_OF_THE_ROLLOUT = [(jtrust.PPO, "minibatches"), (jtrust.NPG, "value_minibatches")]


@pytest.mark.parametrize("kind", [jtrust.TRPO, jtrust.NPG, jtrust.PPO, jtrust.PPOPenalty])
@pytest.mark.parametrize("value", NOT_POSITIVE, ids=repr)
@pytest.mark.parametrize("name", ["max_kl", "value_learning_rate"])
def test_numbers_that_must_be_positive(kind, name, value):
    with pytest.raises(ValueError, match=f"{name}=.*finite number above 0") as caught:
        kind(**{name: value})
    assert caught.value.name == name and caught.value.value is value


@pytest.mark.parametrize(("kind", "name", "value"), [
    *((*count, value) for count in COUNTS + COUNTS_OF_THE_ROLLOUT for value in NOT_WHOLE),
    *((*count, None) for count in COUNTS),
])
def test_counts(kind, name, value):
    with pytest.raises(ValueError, match=f"{name}=.*whole number"):
        kind(**{name: value})


@pytest.mark.parametrize(("kind", "arguments"), [
    (jtrust.TRPO, {"discount": 1.5}), (jtrust.TRPO, {"gae_lambda": -0.1}),
    (jtrust.TRPO, {"damping": -1e-9}), (jtrust.TRPO, {"backtrack_factor": 1.0}),
    (jtrust.PPO, {"clip": 1.5}), (jtrust.PPO, {"learning_rate": 0}),
    (jtrust.PPO, {"max_gradient_norm": 0}), (jtrust.PPO, {"entropy_cost": -1}),
    (jtrust.PPOPenalty, {"target_kl": 0.2, "max_kl": 0.1}),
    (jtrust.PPOPenalty, {"kl_coefficient": 0}), (jtrust.PPO, {"memory_rate": -0.1}),
    (jtrust.TRPL, {"projection": "frob"}), (jtrust.TRPL, {"projection": None}),
    (jtrust.TRPL, {"mean_bound": 0}), (jtrust.TRPL, {"cov_bound": float("nan")}),
    (jtrust.TRPL, {"clip": 1.5}),
    (jtrust.TRPL, {"trust_region_coeff": -1.0}), (jtrust.TRPL, {"mean_bound": "wide"}),
    (jtrust.PPOPenalty, {"adaptive": "yes"}),
    (jtrust.NetworkConfig, {"policy_layers": ()}), (jtrust.NetworkConfig, {"policy_layers": 64}),
    (jtrust.NetworkConfig, {"value_layers": (64, 0)}), (jtrust.NetworkConfig, {"activation": "x"}),
    (jtrust.NetworkConfig, {"initial_std": 0}), (jtrust.NetworkConfig, {"squash": 1}),
])
def test_ranges_and_contradictions(kind, arguments):
    with pytest.raises(jtrust.BadArgument) as caught:
        kind(**arguments)
    assert caught.value.name in arguments


def test_tracers_and_arrays_pass_where_hyperparameters_are_vmapped():
    found = jax.vmap(lambda x: jtrust.TRPO(max_kl=x).max_kl * 2)(jnp.asarray([0.1, 0.2]))
    assert found.shape == (2,)
    algorithm = jtrust.PPO(clip=jnp.asarray([0.1, 0.2]))
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, algorithm)
    assert jax.vmap(lambda a: a.clip + a.discount, in_axes=(axes,))(algorithm).shape == (2,)


def test_hyperparameters_are_leaves_and_counts_are_structure():
    algorithm = jtrust.TRPO(max_kl=0.03, discount=0.97, gae_lambda=0.93)
    assert set(jax.tree.leaves(algorithm)) >= {0.03, 0.97, 0.93}
    other = jtrust.TRPO(cg_iterations=5)
    assert jax.tree.structure(algorithm) != jax.tree.structure(other)
    assert jax.tree.structure(algorithm) == jax.tree.structure(jtrust.TRPO(max_kl=0.5))
    assert jax.tree.map(lambda x: x, algorithm) == algorithm


@pytest.mark.parametrize("arguments", [
    {"total_steps": 0}, {"total_steps": 1.5}, {"total_steps": "many"}, {"seed": -1},
    {"seed": None}, {"checkpoint_every": 0}, {"keep_checkpoints": -1}, {"tensorboard": True},
    {"wandb": "no"}, {"num_envs": "all"}, {"devices": 0},
], ids=repr)
def test_train_refuses_before_anything_compiles(arguments, point):
    with pytest.raises(jtrust.BadArgument) as caught:
        jtrust.train(point, **({"num_envs": 8, "unroll_length": 8} | arguments))
    assert caught.value.name in arguments
