"""A user's own environment: by name, as docs/reference/environments.md has it."""

import json
import re
import sys
import typing
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jtrust
from jtrust.cli import main
from jtrust.environments.base import describe
from jtrust.runs.directory import default_name

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs/reference/environments.md"
TINY = ["--num-envs", "16", "--unroll-length", "8", "--devices", "1"]


@pytest.fixture
def cart(tmp_path, monkeypatch):
    """The page's example as `cart.py` in the current directory."""
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1)
    (tmp_path / "cart.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("cart", None)


@pytest.mark.nightly
def test_the_pages_example_is_trained_resumed_and_evaluated_by_name(cart, capfd):
    arguments = ["train", "cart:make", "--env-option", "force=2.0", "--episode-length", "20"]
    assert main([*arguments, "--steps", "256", *TINY]) == 0
    run = "checkpoints/cart-make-trpo-seed0"
    config = json.loads((cart / run / "config.json").read_text())
    assert config["env"] == "cart:make"
    assert config["env_options"] == {"episode_length": 20, "force": 2.0}
    assert config["action"] == {"kind": "discrete", "n": 3}
    assert main(["resume", run, "--steps", "384", "--devices", "1"]) == 0
    capfd.readouterr()
    assert main(["evaluate", run, "--episodes", "4", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["env"] == "cart:make" and found["length_mean"] <= 20


def test_a_class_will_do_and_its_options_reach_it(cart):
    weak, strong = jtrust.make_env("cart:Cart"), jtrust.make_env("cart:Cart", force=3.0)
    assert strong.name == "cart:Cart" and strong.options == {"force": 3.0}
    assert weak.action == jtrust.Discrete(3) and weak.episode_length == 1000
    key = jax.random.key(0)
    push = [e.step(e.reset(key), jnp.int32(2)).velocity - e.reset(key).velocity
            for e in (weak, strong)]
    assert float(push[1]) == pytest.approx(3 * float(push[0]), rel=1e-4)
    # The wrapped one too, by its own name, since it is made again by it.
    assert jtrust.make_env("cart:make", episode_length=7).name == "cart:make"


@pytest.mark.nightly
def test_a_time_limit_that_the_callable_takes_is_the_loops_too_and_options_may_be_true(cart):
    (cart / "timed.py").write_text(
        "import cart\n"
        "class Timed(cart.Cart):\n"
        "    def __init__(self, episode_length=200, slow=False, name='cart'):\n"
        "        super().__init__(0.1 if slow is True else 1.0)\n"
        "        self.limit, self.name = episode_length, name\n"
    )
    made = jtrust.make_env("timed:Timed", episode_length=5000, name="mine")
    assert made.episode_length == 5000 and made.options["name"] == "mine"
    arguments = ["train", "timed:Timed", "--steps", "128", "--run-dir", "run", *TINY]
    assert main([*arguments, "--env-option", "slow=True", "--env-option", "name=True!"]) == 0
    options = json.loads((cart / "run" / "config.json").read_text())["env_options"]
    assert options == {"slow": True, "name": "True!"}
    sys.modules.pop("timed", None)


@pytest.mark.parametrize(("env", "says"), [
    ("nowhere:make", "no module nowhere"), ("flax.nowhere:make", "no module flax.nowhere"),
    ("json.tool:main", "standard library"),
    ("cart:mke", "it has .*make"), ("cart:", "it has"), ("cart:jtrust", "function or a class"),
    ("broken:make", "ZeroDivisionError"), ("needy:make", "no_such_package"),
    ("failing:make", "raised RuntimeError: no robot"), ("failing:needs", "missing 1 required"),
    ("failing:nothing", "needs a method reset"), ("failing:Still", "action_size"),
    ("cart:Cart --env-option colour=3", "--env-option colour=3"),
    ("cart:Cart --env-option force", "KEY=VALUE"),
    ("cart:Cart --env-option episode_length=3 --episode-length 4", "gives it too"),
    ("cart:make --env-option policy_observation=state", "has chosen"),
    ("cart:Cart --backend mjx", "no such option"),
    ("cart:Cart --env-option name=y", "no such option"),
    ("cart:Cart --env-option forc=null", "--env-option forc=null: null is nothing"),
    ("cart:Cart --env-option force=1 --env-option force=2", "force was given before"),
    ("short:make --episode-length 30", "--episode-length 30: .* is made with 20"),
    ("short:both", "--env-option policy_observation=None: choose one of a, b"),
    ("script:make", "ends the process when it is imported: SystemExit.*__main__"),
    ("short:leave", "ended the process: SystemExit"),
])
def test_what_will_not_do_is_answered_in_one_line(cart, env, says, capfd):
    (cart / "broken.py").write_text("1 / 0\n")
    (cart / "script.py").write_text("import sys\nsys.exit(1)\n")
    (cart / "short.py").write_text(
        "import cart, jtrust, sys\n"
        "def make():\n"
        "    return jtrust.environments.describe(cart.Cart(), 'cart', episode_length=20)\n"
        "def leave():\n    sys.exit(3)\n"
        "class both(cart.Cart):\n"
        "    def reset(self, key):\n        return self.two(super().reset(key))\n"
        "    def step(self, state, action):\n        return self.two(super().step(state, action))\n"
        "    def two(self, state):\n"
        "        import dataclasses\n"
        "        return dataclasses.replace(state, obs={'a': state.obs, 'b': state.obs})\n"
    )
    (cart / "needy.py").write_text("import no_such_package\n")
    (cart / "failing.py").write_text(
        "def make():\n    raise RuntimeError('no robot')\n"
        "def needs(x):\n    return x\ndef nothing():\n    return 3\n"
        "class Still:\n    def reset(self, key): pass\n    def step(self, state, action): pass\n"
    )
    assert main(["train", *env.split(), *TINY]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and re.search(says, error), error
    assert not list(cart.glob("checkpoints/*"))
    for module in ("failing", "short"):
        sys.modules.pop(module, None)


class Tuple(typing.NamedTuple):
    obs: jax.Array
    reward: jax.Array
    done: jax.Array


def test_a_named_tuple_is_a_state_and_a_dictionary_is_told_what_it_lacks():
    class Still:
        action_size = 1

        def reset(self, key):
            return Tuple(jax.random.normal(key, (2,)), jnp.float32(0), jnp.zeros((), bool))

        def step(self, state, action):
            return state._replace(reward=action[0])

    trainer = jtrust.make_trainer(Still(), jtrust.TRPO(), num_envs=8, unroll_length=8, devices=1)
    _, metrics = trainer.iterate(trainer.init(jax.random.key(0)))
    assert metrics["policy/accepted"]

    class AsDictionary(Still):
        def reset(self, key):
            return super().reset(key)._asdict()

    with pytest.raises(jtrust.BadArgument, match="state with a field obs"):
        describe(AsDictionary(), "dictionary")


@pytest.mark.parametrize(("env", "name"), [
    ("brax/ant", "brax-ant-trpo-seed0"), ("my.robot:make", "my.robot-make-trpo-seed0"),
    ("brax/fast+scale_reward(0.5)", "brax-fast-scale_reward-0.5-trpo-seed0"),
    ("../x:y", "x-y-trpo-seed0"), ("gymnax/CartPole-v1", "gymnax-CartPole-v1-trpo-seed0"),
])
def test_default_directories_have_plain_names(env, name):
    assert default_name(env, "trpo", 0) == name
