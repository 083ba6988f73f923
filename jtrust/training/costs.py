"""Judging costs that have limits: values, advantages, and how much an episode costs.

A cost is judged as the reward is, by a value network, targets' scale and optimiser of its own: the
parts of the iteration that estimate, normalise and fit are run once more, side by side for all
costs, on the trajectory with the cost in the reward's place.
"""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms import Algorithm, Batch
from jtrust.algorithms.batch import CostBatch
from jtrust.algorithms.constrained import Constrained
from jtrust.networks import PolicyNetwork, RunningStatistics
from jtrust.training.agent import Agent
from jtrust.training.batch_statistics import explained_variance, step_weights, weighted_mean
from jtrust.training.collection import Collection
from jtrust.training.estimation import Estimation
from jtrust.training.mesh import AXIS
from jtrust.training.policy_evaluation import PolicyEvaluation
from jtrust.training.preparation import Preparation
from jtrust.training.rollout import EpisodeTotals, Trajectory
from jtrust.training.state import TrainState

# The mean length of an episode is taken over at most as many episodes and rollouts: it grows while
# a policy learns, and an old one would make costs look low.
_EPISODES, _ROLLOUTS = 32.0, 8.0
# A limit that was exceeded by more than this share of it for this many updates, in which the cost
# has not come down by another share, is taken to be out of reach.
_FAR, _PROGRESS, _PATIENCE = 0.1, 0.01, 100

Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CostState:
    """What training carries of K costs with limits, [K, ...] each but the first two.

    Attributes:
      steps: of the episodes that the mean length is taken over, [].
      ends: how many of them, [].
      value: parameters of the value networks.
      optimizer: of their optimisers.
      target_statistics: scales of their outputs.
      least: the least J_C since the limit was last nearly kept.
      stalled: updates since it last came down, int32.
    """

    steps: jax.Array
    ends: jax.Array
    value: Any
    optimizer: Any
    target_statistics: RunningStatistics
    least: jax.Array
    stalled: jax.Array


class ConstrainedCollection(Collection):
    """Also gives cost values of observations at which an episode was truncated."""

    def value_fn(self, state: TrainState) -> Any:
        values = super().value_fn(state)

        def of_all(memory: Any, observation: Any) -> tuple[jax.Array, jax.Array]:
            """(values [N], cost values [N, K])."""
            of_costs = jax.vmap(
                lambda one: self.agent.values(_of(one, state), observation), out_axes=-1
            )(_judged(state.costs))
            return values(memory, observation), of_costs

        return of_all

    def __call__(
        self, state: TrainState, keys: jax.Array
    ) -> tuple[TrainState, Trajectory, EpisodeTotals]:
        state, trajectory, totals = super().__call__(state, keys)
        value, of_costs = trajectory.truncation_value
        return state, dataclasses.replace(
            trajectory, truncation_value=value, truncation_cost_values=of_costs
        ), totals


class CostPreparation(Preparation):
    """Advantages keep the unit of the cost: limits are in it."""

    def standard_advantages(
        self, trajectory: Trajectory, advantages: jax.Array, weight: jax.Array | float
    ) -> jax.Array:
        centred = advantages - weighted_mean(advantages, weight)
        return jnp.where(trajectory.whole, centred, 0.0)


@dataclasses.dataclass(frozen=True, eq=False)
class Constraints:
    """Judges a rollout by its costs, and fits their values.

    Attributes:
      names: of the costs, K.
      limits: of each, [K].
      estimate, prepare, evaluate: as for the reward.
      episode_length: the environment's time limit.
    """

    names: tuple[str, ...]
    limits: jax.Array
    estimate: Estimation
    prepare: CostPreparation
    evaluate: PolicyEvaluation
    episode_length: int

    def init(self, key: jax.Array, sample: Any) -> CostState:
        """Before the first iteration; `key` is consumed, `sample` is what values read."""
        count = len(self.names)
        network = self.estimate.agent.value_network
        # One after the other, as members of a sweep are: `jtrust.sweeps.program`.
        value = jax.lax.map(lambda k: network.init(k, sample), jax.random.split(key, count))
        return CostState(
            jnp.float32(0.0), jnp.float32(0.0), value,
            jax.vmap(self.evaluate.value_fit.init)(value),
            jax.vmap(lambda _: RunningStatistics.zero(jnp.float32(0.0)))(jnp.arange(count)),
            jnp.full(count, jnp.finfo(jnp.float32).max), jnp.zeros(count, jnp.int32),
        )

    def __call__(
        self, before: TrainState, state: TrainState, trajectory: Trajectory, batch: Batch
    ) -> tuple[TrainState, Batch, Metrics]:
        """(state with the values of costs fitted, the batch with `costs`, metrics [] each).

        Args:
          before: with the running statistics by which values were computed so far.
          state: with those that the rollout has been taken into.
          trajectory: the rollout.
          batch: of it.
        """
        costs = jnp.stack([trajectory.costs[name] for name in self.names])
        last = jnp.moveaxis(cast(jax.Array, trajectory.truncation_cost_values), -1, 0)
        with jax.named_scope("costs"):
            judged, (advantage, trust, fitted) = jax.vmap(
                lambda one, cost, value: self._judge(
                    one, before, state,
                    dataclasses.replace(trajectory, reward=cost, truncation_value=value), batch,
                )
            )(_judged(state.costs), costs, last)
            carried = self._count(state.costs, trajectory)
            length = self._length(carried)
            estimate = length * jax.vmap(lambda c: weighted_mean(c, batch.weight))(costs)
            carried = self._watch(dataclasses.replace(carried, **judged), estimate)
            out_of_reach = carried.stalled >= _PATIENCE
            # What a cost is worth the trust region for, where the reward may not be.
            needed = jnp.max(jnp.where(estimate > self.limits, trust, 0.0))
            batch = dataclasses.replace(
                batch, costs=CostBatch(advantage, estimate, length),
                trust=jnp.maximum(batch.trust, needed),
            )
        metrics = {
            f"cost/{name}/{what}": x[i] for i, name in enumerate(self.names)
            for what, x in (
                ("estimate", estimate), ("infeasible", out_of_reach.astype(jnp.float32)),
                *fitted.items(),
            )
        }
        return dataclasses.replace(state, costs=carried), batch, metrics

    def _judge(
        self, one: dict[str, Any], before: TrainState, state: TrainState, trajectory: Trajectory,
        batch: Batch,
    ) -> tuple[dict[str, Any], tuple[jax.Array, jax.Array, Metrics]]:
        """Of one cost: (what is carried of its values, (advantages [T, N], their worth [],
        metrics))."""
        agent = self.estimate.agent
        view = _of(one, before)
        values, advantages, targets = self.estimate(view, trajectory)
        weight, share = step_weights(cast(jax.Array, trajectory.whole))
        scale = self.prepare.updated_targets(view.target_statistics, targets, weight, share)
        folded = self.prepare.folded_value(view, state.observation_statistics, scale)
        view = dataclasses.replace(
            _of({**one, "value": folded}, state), target_statistics=scale
        )
        batch = dataclasses.replace(
            batch, value_target=agent.scaled_targets(view, targets),
            advantage=self.prepare.standard_advantages(trajectory, advantages, batch.weight),
            trust=self.prepare.worth(view, advantages, batch.weight),
        )
        view, batch = self.evaluate(view, trajectory, batch)
        value, optimizer, fitted = self.evaluate.fit(view, batch)
        return {"value": value, "optimizer": optimizer, "target_statistics": scale}, (
            batch.advantage, jnp.asarray(batch.trust), {
                "value_loss": fitted["value/loss"],
                "explained_variance": explained_variance(values, targets, batch.weight),
            },
        )

    def _count(self, costs: CostState, trajectory: Trajectory) -> CostState:
        """With the rollout's steps and ends of episodes."""
        ends = jax.lax.psum(
            jnp.sum((trajectory.termination | trajectory.truncation).astype(jnp.float32)), AXIS
        )
        size = trajectory.termination.size * jax.lax.axis_size(AXIS)
        steps, ends = costs.steps + size, costs.ends + ends
        kept = jnp.minimum(
            _EPISODES / jnp.maximum(ends, _EPISODES),
            jnp.minimum(1.0, _ROLLOUTS * size / steps),
        )
        return dataclasses.replace(costs, steps=kept * steps, ends=kept * ends)

    def _length(self, costs: CostState) -> jax.Array:
        """Mean number of steps of an episode, []."""
        return jnp.minimum(costs.steps / jnp.maximum(costs.ends, 1.0), self.episode_length)

    def _watch(self, costs: CostState, estimate: jax.Array) -> CostState:
        """With how long each cost has been far beyond its limit without coming down."""
        far = estimate > (1.0 + _FAR) * self.limits
        falls = estimate < (1.0 - _PROGRESS) * costs.least
        stalled = jnp.where(far & ~falls, costs.stalled + 1, 0)
        least = jnp.where(
            far, jnp.minimum(costs.least, estimate), jnp.finfo(jnp.float32).max
        )
        return dataclasses.replace(costs, least=least, stalled=stalled)


def make_constraints(
    algorithm: Algorithm, evaluation: PolicyEvaluation, agent: Agent
) -> Constraints:
    """The part for an algorithm's costs, which judges and fits as another does the reward."""
    preparation = evaluation.prepare
    prepare = CostPreparation(**{
        f.name: getattr(preparation, f.name) for f in dataclasses.fields(Preparation)
    })
    return Constraints(
        algorithm.cost_names, cast(Constrained, algorithm).limits_of_costs(), evaluation.estimate,
        prepare,
        PolicyEvaluation(evaluation.value_fit, evaluation.estimate, prepare),
        agent.environment.episode_length,
    )


def check_memory(network: PolicyNetwork) -> None:
    """Raises `BadArgument` for a policy that remembers, which costs do not know of."""
    if jax.tree.leaves(jax.eval_shape(lambda: network.initial_carry())):
        raise checks.BadArgument(
            "algorithm", "with cost_limits", "has no networks with memory yet; leave memory out"
        )


def _judged(costs: CostState) -> dict[str, Any]:
    """What there is of each cost's values, [K, ...]."""
    return {
        name: getattr(costs, name) for name in ("value", "optimizer", "target_statistics")
    }


def _of(one: dict[str, Any], state: TrainState) -> TrainState:
    """A state whose values are those of one cost, of `_judged`."""
    return dataclasses.replace(
        state, value=one["value"], value_optimizer=one["optimizer"],
        target_statistics=one["target_statistics"],
    )
