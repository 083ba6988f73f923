"""The tasks whose learning is measured, and how a measured setting is named."""

from __future__ import annotations

import dataclasses
from typing import Any

# jtrust's algorithms among the arms.
OURS = ("trpo", "ppo", "npg", "ppo-kl", "trpl")


@dataclasses.dataclass(frozen=True)
class Task:
    """One environment and what a run in it may take.

    Attributes:
      name: in file names and tables.
      env: for `jtrust.make_env`.
      steps: environment steps of a run.
      low, high: returns that count as 0 and as 1 where tasks are put together: about those of
        random actions and of a policy that has learned the task.
      backend: of a brax environment.
      num_envs: environments side by side, for jtrust; others have their own number.
      gpu: too long for a CPU, so only run when asked for.
      extra: of one study alone, so only run when it is named.
      wanted: the return from which a run counts as having learned the task, where there is one.
    """

    name: str
    env: str
    steps: int
    low: float
    high: float
    backend: str | None = None
    num_envs: int = 64
    gpu: bool = False
    extra: bool = False
    wanted: float | None = None

    @property
    def make(self) -> dict[str, Any]:
        """Keyword arguments for `jtrust.make_env`."""
        return {"backend": self.backend} if self.backend else {}


_ALL = (
    Task("inverted_pendulum", "brax/inverted_pendulum", 1_000_000, 0, 1000, "generalized",
         wanted=950),
    Task("inverted_double_pendulum", "brax/inverted_double_pendulum", 3_000_000, 0, 9350,
         "generalized", wanted=9000),
    Task("reacher", "brax/reacher", 5_000_000, -400, -10, "spring"),
    Task("hopper", "brax/hopper", 5_000_000, 0, 1500, "spring"),
    Task("walker2d", "brax/walker2d", 5_000_000, 0, 1500, "spring"),
    Task("ant", "brax/ant", 2_000_000, 0, 1500, "mjx"),
    Task("ant-spring", "brax/ant", 2_000_000, 0, 1500, "spring", extra=True),
    Task("CartpoleBalance", "playground/CartpoleBalance", 5_000_000, 250, 1000, wanted=950),
    Task("CartpoleSwingup", "playground/CartpoleSwingup", 10_000_000, 0, 900, wanted=700),
    Task("PendulumSwingup", "playground/PendulumSwingup", 10_000_000, 0, 900, wanted=600),
    Task("CheetahRun", "playground/CheetahRun", 5_000_000, 0, 900),
    Task("ReacherEasy", "playground/ReacherEasy", 5_000_000, 0, 1000),
    Task("CartPole", "gymnax/CartPole-v1", 250_000, 20, 500, wanted=475),
    # With brax's budgets (its notebooks/training.ipynb, 0.14.2) and backend.
    Task("ant-gpu", "brax/ant", 50_000_000, 0, 8000, "positional", 2048, gpu=True),
    Task("halfcheetah-gpu", "brax/halfcheetah", 50_000_000, 0, 8000, "positional", 2048, gpu=True),
    Task("humanoid-gpu", "brax/humanoid", 50_000_000, 0, 12_000, "positional", 2048, gpu=True),
)
SUITE = {task.name: task for task in _ALL}


def shortened(name: str, share: float) -> Task:
    """A task of the suite with a share of its steps."""
    return dataclasses.replace(SUITE[name], steps=int(SUITE[name].steps * share))


def parse_arm(arm: str) -> tuple[str, dict[str, Any]]:
    """`trpo:max_kl=0.02,num_envs=64` -> ("trpo", {"max_kl": 0.02, "num_envs": 64}).

    What stands behind the colon goes, by its name, to the algorithm, to the shape of the networks
    or to `jtrust.train`.
    """
    name, _, rest = arm.partition(":")
    settings = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            raise SystemExit(f"{arm}: {part!r} must be NAME=VALUE")
        settings[key] = _value(value)
    return name, settings


def _value(text: str) -> Any:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
