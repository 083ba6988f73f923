"""The runs of a sweep, and which of them are one program."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jtrust.runs.config import RunConfig
from jtrust.sweeps.settings import Settings
from jtrust.training import Trainer


@dataclasses.dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
      name: of its directory, in that of the sweep.
      seed: of its random key.
      settings: what it has otherwise than other members, by name.
      trainer: its own, on one device.
      config: what its `config.json` says.
    """

    name: str
    seed: int
    settings: Settings
    trainer: Trainer
    config: RunConfig

    @property
    def label(self) -> str:
        """Its settings and seed, for a person."""
        return ", ".join(f"{k} {v}" for k, v in (*self.settings.items(), ("seed", self.seed)))


def hyperparameters(trainer: Trainer) -> tuple[Any, Any, Any]:
    """All numbers that one program can take as arguments, as a pytree."""
    return trainer.algorithm, trainer.gae, trainer.value_fit


def told(trainer: Trainer, parts: tuple[Any, Any, Any]) -> Trainer:
    """The trainer with other numbers: of `hyperparameters`."""
    algorithm, gae, value_fit = parts
    return dataclasses.replace(trainer, algorithm=algorithm, gae=gae, value_fit=value_fit)


@dataclasses.dataclass
class Group:
    """Members of which one program is made.

    Attributes:
      members: in the order in which they begin.
      varied: which leaves of `hyperparameters` are arguments of the program; all others are part
        of it, as they are of the program of a run alone.
      slots: how many members the program trains at once; None until it is compiled.
      devices: over how many devices they are spread.
    """

    members: list[Member]
    varied: tuple[int, ...]
    slots: int | None = None
    devices: int | None = None

    @property
    def trainer(self) -> Trainer:
        """Of a member that the program is made for; its varied numbers are not looked at."""
        return self.members[0].trainer

    def values(self, member: Member) -> np.ndarray:
        """A member's varied numbers, float32 [varied]."""
        leaves = jax.tree.leaves(hyperparameters(member.trainer))
        return np.asarray([leaves[i] for i in self.varied], np.float32)


def grouped(members: Sequence[Member]) -> list[Group]:
    """Members by program: what shapes it is the same in each group, in order of first mention."""
    groups: dict[Any, list[Member]] = {}
    for member in members:
        groups.setdefault(_shape(member.trainer), []).append(member)
    return [Group(some, varied([m.trainer for m in some])) for some in groups.values()]


def _shape(trainer: Trainer) -> Any:
    """What shapes the program of a trainer."""
    return (
        type(trainer), jax.tree.structure(hyperparameters(trainer)), trainer.network,
        trainer.num_envs, trainer.unroll_length, trainer.environment.action,
    )


def varied(trainers: Sequence[Trainer]) -> tuple[int, ...]:
    """Which leaves of `hyperparameters` differ among trainers of one program."""
    rows = [jax.tree.leaves(hyperparameters(trainer)) for trainer in trainers]
    return tuple(i for i, column in enumerate(zip(*rows, strict=True)) if len(set(column)) > 1)


def changes(base: RunConfig, config: RunConfig) -> dict[str, Any]:
    """What a configuration has otherwise than another, as little as JSON needs to say."""
    ours, theirs = dataclasses.asdict(base), dataclasses.asdict(config)
    found: dict[str, Any] = {}
    for name, value in theirs.items():
        if value == ours[name]:
            continue
        if name == "hyperparameters" and config.algorithm == base.algorithm:
            value = {k: v for k, v in value.items() if ours[name].get(k) != v}
        found[name] = value
    return found


def changed(base: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a configuration, of `changes` to another."""
    fields = {**base, **found}
    if "hyperparameters" in found and "algorithm" not in found:
        fields["hyperparameters"] = {**base["hyperparameters"], **found["hyperparameters"]}
    return fields
