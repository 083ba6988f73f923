"""Trainers with a part taken out, to see what the part does."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from jtrust.networks import RunningStatistics
from jtrust.training import Trainer
from jtrust.training.agent import Agent
from jtrust.training.collection import Collection
from jtrust.training.preparation import Preparation, unless_first
from jtrust.training.random_keys import environment_keys


class Unfolded(Preparation):
    """New statistics of observations move the policy and the values, as they do elsewhere."""

    def folded_policy(self, state, new):
        return state.policy

    def folded_value(self, state, new, new_targets):
        return super().folded_value(state, state.observation_statistics, new_targets)


class SameStarts(Collection):
    """Episodes begin from the states that the first ones began from, as under brax's auto-reset.

    One of eight for each environment, where brax has one.
    """

    def reset_pool(self, state, keys):
        first = dataclasses.replace(state, iteration=jnp.zeros_like(state.iteration))
        return super().reset_pool(state, environment_keys(first, self.envs_per_device))


class EndingTogether(Collection):
    """All first episodes run to their time limit, so all that follow end together too."""

    def begun(self, state, pool):
        episodes = super().begun(state, pool)
        return dataclasses.replace(episodes, head_start=jnp.zeros_like(episodes.head_start))


class UnscaledAgent(Agent):
    """The value network gives returns themselves, in units of reward."""

    def values(self, state, observation):
        unit = RunningStatistics.zero(state.target_statistics.mean)  # mean 0, deviation 1
        return super().values(dataclasses.replace(state, target_statistics=unit), observation)

    def scaled_targets(self, state, targets):
        return targets


class UnscaledValues(Preparation):
    """For `UnscaledAgent`: no change of a scale of the targets is folded in."""

    def folded_value(self, state, new, new_targets):
        key, old = self.agent.environment.value_key, state.observation_statistics
        folded = self.agent.value_network.fold_input(state.value, old.at(key), new.at(key))
        return unless_first(old, state.value, folded)


class UnscaledAdvantages(Preparation):
    """Advantages as they were estimated, with whatever mean and deviation they have."""

    def standard_advantages(self, trajectory, advantages, weight):
        return advantages


def _as(cls: type, part: Any) -> Any:
    """A part of a trainer as one of another class."""
    return cls(**{f.name: getattr(part, f.name) for f in dataclasses.fields(part)})


class WithoutFolding(Trainer):
    @functools.cached_property
    def preparation(self):
        return _as(Unfolded, super().preparation)


class WithoutFreshStarts(Trainer):
    @functools.cached_property
    def collection(self):
        return _as(SameStarts, super().collection)


class WithoutSpread(Trainer):
    @functools.cached_property
    def collection(self):
        return _as(EndingTogether, super().collection)


class WithoutValueScale(Trainer):
    @functools.cached_property
    def agent(self):
        return _as(UnscaledAgent, super().agent)

    @functools.cached_property
    def preparation(self):
        return _as(UnscaledValues, super().preparation)


class WithoutStandardizing(Trainer):
    @functools.cached_property
    def preparation(self):
        return _as(UnscaledAdvantages, super().preparation)


ABLATIONS = {
    "fold": WithoutFolding, "fresh_starts": WithoutFreshStarts, "spread": WithoutSpread,
    "value_scale": WithoutValueScale, "standardize": WithoutStandardizing,
}


def without(trainer: Trainer, part: str) -> Trainer:
    """A trainer that lacks a part."""
    return _as(ABLATIONS[part], trainer)
