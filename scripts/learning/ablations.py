"""Trainers with a part taken out, to see what the part does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.networks import INPUT_LAYER, OUTPUT_LAYER, get_layer, with_layer
from jtrust.normalization import Moments
from jtrust.training import Trainer
from jtrust.training.mesh import AXIS
from jtrust.trust_region import mean_over


class Unfolded(Trainer):
    """New statistics of observations move the policy and the values, as they do elsewhere."""

    def _update_normalizers(self, state, observation, targets, *weights):
        new, observed = super()._update_normalizers(state, observation, targets, *weights)
        new = dataclasses.replace(
            new,
            policy=with_layer(new.policy, INPUT_LAYER, get_layer(state.policy, INPUT_LAYER)),
            value=with_layer(new.value, INPUT_LAYER, get_layer(state.value, INPUT_LAYER)),
        )
        some = jax.tree.map(lambda x: x[:: max(x.shape[0] // 8, 1)], observation)
        before = self.policy(state.policy, state.observation_moments, some)
        after = self.policy(new.policy, new.observation_moments, some)
        drift_kl = mean_over(jnp.mean(before.kl_divergence(after)), AXIS)
        return new, {**observed, "observation/drift_kl": drift_kl}


class SameStarts(Trainer):
    """Episodes begin from the states that the first ones began from, as under brax's auto-reset.

    One of eight for each environment, where brax has one.
    """

    def fresh_starts(self, state, keys):
        first = dataclasses.replace(state, iteration=jnp.zeros_like(state.iteration))
        return super().fresh_starts(state, self.environment_keys(first))


class EndingTogether(Trainer):
    """All first episodes run to their time limit, so all that follow end together too."""

    def begun(self, state, starts):
        episodes = super().begun(state, starts)
        return dataclasses.replace(episodes, head_start=jnp.zeros_like(episodes.head_start))


class UnscaledValues(Trainer):
    """The value network gives returns themselves, in units of reward."""

    def values(self, state, observation):
        unit = Moments.zero(state.target_moments.mean)  # mean 0, deviation 1
        return super().values(dataclasses.replace(state, target_moments=unit), observation)

    @staticmethod
    def scaled_targets(state, targets):
        return targets

    def normalize(self, state, trajectory, advantages, targets, keys):
        new, batch, observed = super().normalize(state, trajectory, advantages, targets, keys)
        value = with_layer(new.value, OUTPUT_LAYER, get_layer(state.value, OUTPUT_LAYER))
        return dataclasses.replace(new, value=value), batch, observed


class UnscaledAdvantages(Trainer):
    """Advantages as they were estimated, with whatever mean and deviation they have."""

    @staticmethod
    def standard_advantages(trajectory, advantages, weight):
        return advantages


ABLATIONS = {
    "fold": Unfolded, "fresh_starts": SameStarts, "spread": EndingTogether,
    "value_scale": UnscaledValues, "standardize": UnscaledAdvantages,
}


def without(make_trainer: Callable[..., Trainer], part: str) -> Callable[..., Trainer]:
    """`make_trainer` for trainers that lack a part."""

    def make(*args: Any, **kwargs: Any) -> Trainer:
        trainer = make_trainer(*args, **kwargs)
        fields = {f.name: getattr(trainer, f.name) for f in dataclasses.fields(trainer)}
        return ABLATIONS[part](**fields)

    return make
