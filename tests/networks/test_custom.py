"""Networks of the user's own: trained, kept and loaded as ours are, and refused in one line."""

import json
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jtrust
from jtrust.algorithms import Batch
from jtrust.distributions import Categorical, DiagonalGaussian, MultiCategorical, TanhGaussian

pytestmark = pytest.mark.slow

SMALL = dict(num_envs=16, unroll_length=8, devices=1)
ALGORITHMS = [
    jtrust.TRPO(), jtrust.TRPO(damping=0.0), jtrust.NPG(), jtrust.PPO(minibatches=4),
    jtrust.PPOPenalty(),
]


class Policy(nn.Module):
    """A shared deviation, left to broadcast; a layer whose name is one of ours."""

    actions: int = 1

    @nn.compact
    def __call__(self, x):
        mean = nn.Dense(self.actions, name="output")(nn.relu(nn.Dense(8, name="input")(x)))
        return DiagonalGaussian(mean, self.param("log_std", nn.initializers.zeros, (self.actions,)))


class Value(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.elu(nn.Dense(8)(x)))[..., 0]


class BinsPolicy(nn.Module):
    actions: int = 1
    bins: int = 5

    @nn.compact
    def __call__(self, x):
        logits = nn.Dense(self.actions * self.bins)(x)
        return MultiCategorical(logits.reshape(*x.shape[:-1], self.actions, self.bins))


OWN = dict(policy_network=Policy(), value_network=Value())


def equal(a, b):
    def plain(x):
        key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if key else x)

    # NaN stands where no episode has ended yet.
    return all(
        plain(x).tobytes() == plain(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def random_batch(steps=8, envs=16):
    keys = jax.random.split(jax.random.key(5), 4)
    observation = jax.random.normal(keys[0], (steps, envs, 2))
    return Batch(
        observation, observation, jax.random.normal(keys[1], (steps, envs, 1)),
        jax.random.normal(keys[2], (steps, envs)), observation[..., 0],
        jax.random.split(keys[3], envs),
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda a: f"{a.name} {a.max_kl}")
def test_an_update_moves_the_module_and_not_the_layer_before_it(point, algorithm):
    trainer = jtrust.make_trainer(point, algorithm, **SMALL, **OWN)
    state, batch = trainer.init(jax.random.key(0)), random_batch()
    # Constants that are no round numbers, as after many changes of the normaliser.
    layer = {"scale": jnp.asarray([0.7, 1.9]), "shift": jnp.asarray([-0.3, 0.1])}
    policy, value = ({**part, "input": layer} for part in (state.policy, state.value))

    @jax.jit
    def update(policy, value):
        new_policy, _, metrics = algorithm.update(
            state.policy_optimizer, policy, trainer.policy_network, batch
        )
        new_value, _, _ = trainer.value_fit.update(
            state.value_optimizer, value, trainer.value_network, batch
        )
        return new_policy, new_value, metrics

    new_policy, new_value, metrics = update(policy, value)
    assert metrics["policy/accepted"] and 0 < metrics["policy/kl"] <= algorithm.max_kl
    for new, old in ((new_policy, policy), (new_value, value)):
        assert equal(new["input"], layer)
        for a, b in zip(*map(jax.tree.leaves, (new["module"], old["module"])), strict=True):
            assert not np.array_equal(a, b)
    # The layer behind the values learns.
    assert not np.array_equal(new_value["output"]["kernel"], value["output"]["kernel"])
    assert not np.array_equal(new_value["output"]["bias"], value["output"]["bias"])


@pytest.mark.parametrize("algorithm", [
    jtrust.TRPO(), pytest.param(jtrust.PPO(minibatches=4), marks=pytest.mark.nightly),
], ids=lambda a: a.name)
def test_a_run_resumes_to_the_last_bit_and_its_policy_loads(tmp_path, point, algorithm):
    arguments = dict(seed=1, **SMALL, **OWN)
    whole = jtrust.train(point, algorithm, total_steps=128 * 4, **arguments)
    jtrust.train(point, algorithm, total_steps=128 * 2, run_dir=tmp_path / "r", **arguments)
    resumed = jtrust.resume(tmp_path / "r", 128 * 4, env=point, devices=1, **OWN)
    assert equal(whole.state, resumed.state)
    assert np.all(whole.metrics["observation/drift_kl"][1:] < 1e-8)
    np.testing.assert_array_equal(
        whole.metrics["policy/kl"][2:], resumed.metrics["policy/kl"]
    )
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    assert config["own_networks"] == {"policy_network": "Policy", "value_network": "Value"}

    policy = jtrust.load_policy(tmp_path / "r", policy_network=Policy())
    x = jax.random.normal(jax.random.key(0), (4, 3, 2))
    np.testing.assert_array_equal(policy(x), whole.policy(x))
    assert policy(x[0, 0]).shape == (1,)
    found = jtrust.evaluate(tmp_path / "r", episodes=3, env=point, policy_network=Policy())
    assert found["step"] == 512


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "run"
    jtrust.train("brax/fast", total_steps=128, run_dir=path, **SMALL, **OWN)
    return path


@pytest.mark.parametrize(("call", "given", "name"), [
    (jtrust.load_policy, {}, "policy_network"),
    (jtrust.evaluate, {}, "policy_network"),
    (jtrust.resume, {}, "policy_network"),
    (jtrust.resume, dict(value_network=Value()), "policy_network"),
    (jtrust.resume, dict(policy_network=Policy()), "value_network"),
    (jtrust.load_policy, dict(policy_network=Value()), "policy_network"),
])
def test_a_network_that_is_not_given_again_is_asked_for_in_one_line(run_dir, call, given, name):
    wanted = {"policy_network": "Policy", "value_network": "Value"}[name]
    with pytest.raises(jtrust.BadArgument, match=rf"your own, {wanted}; from Python, give it again"
                       ) as caught:
        call(run_dir, **given)
    assert caught.value.name == name and "\n" not in str(caught.value)


def test_a_module_of_other_sizes_is_refused_when_it_is_loaded(run_dir):
    class Policy(nn.Module):
        @nn.compact
        def __call__(self, x):
            return DiagonalGaussian(nn.Dense(1)(x), self.param("s", nn.initializers.zeros, (1,)))

    with pytest.raises(jtrust.BadArgument, match="RUN_DIR"):
        jtrust.load_policy(run_dir, policy_network=Policy())


def test_a_run_with_networks_of_ours_takes_no_other(tmp_path):
    jtrust.train("brax/fast", total_steps=128, run_dir=tmp_path / "r", **SMALL)
    for call, given in ((jtrust.load_policy, "policy_network"), (jtrust.resume, "value_network")):
        with pytest.raises(jtrust.BadArgument, match="leave it out") as caught:
            call(tmp_path / "r", **{given: Policy()})
        assert caught.value.name == given
    # A run from before there were networks of one's own is such a run too.
    config = json.loads((tmp_path / "r" / "config.json").read_text())
    del config["own_networks"]
    (tmp_path / "r" / "config.json").write_text(json.dumps(config))
    assert jtrust.load_policy(tmp_path / "r")(jnp.zeros(2)).shape == (1,)


def test_evaluation_on_the_command_line_answers_in_one_line(run_dir, capsys):
    from jtrust.cli import main

    assert main(["evaluate", str(run_dir)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("jtrust: policy_network None: ") and "from Python" in line


def test_modules_work_with_bins_and_on_several_devices(point):
    result = jtrust.train(
        point, total_steps=256, num_envs=16, unroll_length=8, devices=2, action_bins=5,
        policy_network=BinsPolicy(),
    )
    assert result.metrics["policy/accepted"].all()
    assert np.all(np.abs(np.asarray(result.policy(jnp.ones((7, 2))))) <= 1)


class Discrete3(nn.Module):
    outputs: int = 3

    @nn.compact
    def __call__(self, x):
        return Categorical(nn.Dense(self.outputs)(x))


@pytest.mark.nightly
def test_the_pages_example_trains(tmp_path):
    page = (Path(__file__).parents[2] / "docs/do/networks.md").read_text()
    lines = page[page.index("    import flax.linen"):page.index("- It must take any")].splitlines()
    code = "\n".join(line[4:] for line in lines)
    # The page's run as it stands, in fewer steps.
    code = code.replace("policy_network=Gated(1), run_dir", (
        "policy_network=Gated(1), total_steps=256, num_envs=16, unroll_length=8, devices=1, run_dir"
    ), 1).replace("runs/gated", str(tmp_path / "gated"))
    names: dict = {}
    exec(code, names)
    assert names["policy"](jnp.zeros(4)).shape == (1,)


def test_modules_work_with_discrete_actions(point):
    class Three(type(point)):
        def step(self, state, action):
            return super().step(state, (action - 1.0)[None])

    environment = jtrust.environments.describe(Three(), "three", action=jtrust.Discrete(3))
    trainer = jtrust.make_trainer(
        environment, jtrust.TRPO(), policy_network=Discrete3(), **SMALL
    )
    jax.eval_shape(lambda key: trainer.iterate(trainer.init(key)), jax.random.key(0))
    with pytest.raises(jtrust.BadArgument, match=r"logits \[..., 3\], as of a Categorical"):
        jtrust.make_trainer(environment, jtrust.TRPO(), policy_network=Discrete3(4), **SMALL)


def module(function):
    class Wrong(nn.Module):
        @nn.compact
        def __call__(self, x):
            return function(self, x)

    return Wrong()


def gaussian(x):
    return DiagonalGaussian(x, jnp.zeros_like(x))


class Unregistered:
    """Has all that a distribution has and is none to JAX."""

    def __init__(self, inner):
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)


WRONG = [
    ("policy_network", Policy, "an instance"),
    ("policy_network", lambda x: x, "must be a flax.linen module"),
    ("policy_network", Policy(2), r"actions \[..., 1\].*actions \(5, 3, 2\)"),
    ("policy_network", module(lambda m, x: nn.Dense(1)(x)), "has no sample, log_prob"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1)(x)[0])), "must return a distrib"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1)(x.reshape(2, 1)))),
     "any leading axes; for .* it raised"),
    ("policy_network", BinsPolicy(), "such as a DiagonalGaussian.*makes a MultiCategorical"),
    ("policy_network", module(lambda m, x: gaussian(x[..., :1])), "no parameters"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1)(nn.BatchNorm(True)(x)))),
     "also has batch_stats"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1, param_dtype=jnp.bfloat16)(x))),
     "has bfloat16 parameters"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1, dtype=jnp.bfloat16)(x))),
     "float32 arrays; this DiagonalGaussian holds bfloat16"),
    ("policy_network", module(lambda m, x: Unregistered(gaussian(nn.Dense(1)(x)))),
     "float32 arrays; this Unregistered holds Unregistered"),
    ("policy_network", module(lambda m, x: gaussian(nn.Dense(1)(nn.Dropout(0.5)(x)))), "raised"),
    ("value_network", module(lambda m, x: nn.Dense(1)(x)), r"drop its last axis, as by \[..., 0\]"),
    ("value_network", Policy(), "it returns DiagonalGaussian"),
    ("value_network", Value, "an instance"),
    ("value_network", "mlp", "must be a flax.linen module"),
]


@pytest.mark.parametrize(("name", "network", "says"), WRONG, ids=[
    f"{n}-{i}" for i, (n, _, _) in enumerate(WRONG)
])
def test_a_module_that_will_not_do_is_refused_by_name_before_anything_is_compiled(
    point, name, network, says
):
    with pytest.raises(jtrust.BadArgument, match=says) as caught:
        jtrust.make_trainer(point, jtrust.TRPO(), **SMALL, **{name: network})
    assert caught.value.name == name and "\n" not in str(caught.value)


def test_a_squashed_gaussian_and_logits_of_another_number_of_bins(point):
    squashed = module(lambda m, x: TanhGaussian(nn.Dense(1)(x), jnp.zeros(1)))
    jtrust.make_trainer(point, jtrust.TRPO(), policy_network=squashed, **SMALL)
    with pytest.raises(jtrust.BadArgument, match=r"logits \[..., 1, 7\].*logits \(5, 3, 1, 5\)"):
        jtrust.make_trainer(
            point, jtrust.TRPO(), policy_network=BinsPolicy(), action_bins=7, **SMALL
        )
