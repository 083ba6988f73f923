"""Settings for tasks where better ones than the defaults are known, each with what was measured.

A preset is a file of JSON beside this one: the environment and its options, the algorithm, its
settings, and the evidence: the command that was run, its seeds, and the returns with their 95 %
intervals beside those of the defaults. None is kept without.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jtrust import checks

__all__ = ["Evidence", "Preset", "load", "names"]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What stands behind a preset.

    Attributes:
      page: of the repository, that shows what was run.
      command: that runs it again.
      steps: environment steps of each run.
      seeds: of the preset, and of the defaults, none of them used to choose the preset.
      measured: what the numbers are of.
      preset: mean and 95 % interval, `mean`, `low`, `high`.
      defaults: the same of the defaults.
    """

    page: str
    command: str
    steps: int
    seeds: int
    measured: str
    preset: Mapping[str, float]
    defaults: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Preset:
    """Settings for one task.

    Attributes:
      env: its name, `SUITE/NAME`.
      env_options: keyword arguments of `jtrust.make_env`, such as the backend.
      algorithm: name of the algorithm.
      settings: its hyperparameters, by name.
      purpose: what it was found for.
      evidence: what was measured.
    """

    env: str
    env_options: Mapping[str, Any]
    algorithm: str
    settings: Mapping[str, Any]
    purpose: str
    evidence: Evidence

    def make_env(self) -> Any:
        """The environment, as `jtrust.make_env` makes it."""
        from jtrust.environments import make_env

        return make_env(self.env, **self.env_options)

    def make_algorithm(self, **given: Any) -> Any:
        """The algorithm with the preset's settings; what is `given` wins.

        Raises:
          BadArgument: a setting that will not do.
        """
        from jtrust.algorithms import ALGORITHMS

        return ALGORITHMS[self.algorithm](**{**self.settings, **given})


def names() -> list[str]:
    """The environments that have a preset."""
    return sorted(_all())


def load(env: str) -> Preset:
    """The preset of an environment.

    Args:
      env: its name; a bare one means brax.

    Raises:
      BadArgument: it has none, with those that have.
    """
    from jtrust.environments import split_name

    name = "/".join(split_name(env))
    if name not in _all():
        raise checks.BadArgument(
            "preset", name, f"there is none for it; there are for {', '.join(names())}"
        )
    return _all()[name]


@functools.cache
def _all() -> dict[str, Preset]:
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        evidence = Evidence(**fields.pop("evidence"))
        preset = Preset(purpose=fields.pop("for"), evidence=evidence, **fields)
        found[preset.env] = preset
    return found
