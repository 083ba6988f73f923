"""Proximal policy optimisation: with the clipped surrogate, and with a penalty on the KL."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from jtrust import checks
from jtrust.algorithms.actor_critic import ActorCritic
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import SizeDependent, by_size, kl_scale
from jtrust.algorithms.minibatch_sgd import init_optimizer, largest_divisor, minibatch_sgd
from jtrust.algorithms.surrogate import (
    DistributionFn,
    Limits,
    Surrogate,
    deviation_mask,
    memory_mask,
    policy_metrics,
)
from jtrust.algorithms.trees import Params, finite, tree_add
from jtrust.hyperparameters import hyperparameters, static
from jtrust.trust_region import LineSearch, backtracking_line_search, mean_over


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PPOState:
    """What PPO carries from one batch to the next.

    Attributes:
      optimizer: Adam's moments.
      rate_scale: what `learning_rate` is multiplied by, []; 1 where it does not adapt.
      kl_coefficient: β of the penalty, []; unused by the clipped surrogate.
    """

    optimizer: Any
    rate_scale: jax.Array
    kl_coefficient: jax.Array


class Samples(NamedTuple):
    """What gradient steps learn from, [T, N, ...] each leaf, and [B, ...] in a minibatch.

    Attributes:
      observation: normalised.
      action: that was taken.
      advantage: of it.
      weight: of the step.
      gain_weight: of the step in the surrogate objective.
      old: the policy before the update.
      old_log_prob: log density of the action under it.
    """

    observation: jax.Array
    action: jax.Array
    advantage: jax.Array
    weight: jax.Array
    gain_weight: jax.Array
    old: Any
    old_log_prob: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProximalPolicy(ActorCritic):
    """Epochs of minibatch gradient steps, then a check that the trust region was kept.

    First-order steps bound nothing. After the last one the mean KL divergence of the whole batch
    is measured; where it exceeds `max_kl`, the policy is drawn back along the straight line
    towards the old one until it does not.

    Attributes:
      learning_rate: Adam's step size for the policy.
      epochs: passes over a batch.
      minibatches: gradient steps per pass. None: one for every 512 steps of the rollout, from 8 to
        128 (`minibatches_for`), or 8 for each of several parts.
      max_gradient_norm: gradients are scaled down to this norm.
      target_kl: mean KL divergence per update that is aimed at, where `adaptive`; each of several
        parts aims at its share.
      adaptive: whether the algorithm follows the divergence: PPO by its learning rate, PPO with
        penalty by the penalty's coefficient.
      memory_rate: multiple of the learning rate for the weights of a policy's memory, and for those
        that read it.
    """

    minibatched: ClassVar[tuple[str, ...]] = ("minibatches",)

    max_kl: float = by_size(0.05)
    learning_rate: float = 3e-4
    epochs: int = static(by_size(5))
    minibatches: int | None = static(None)
    max_gradient_norm: float = 1.0
    target_kl: float = by_size(0.01)
    adaptive: bool = static(True)
    memory_rate: float = 0.1

    def __post_init__(self):
        super().__post_init__()
        checks.real_number("learning_rate", self.learning_rate, above=0, example=3e-4)
        checks.whole_number("epochs", self.epochs, maximum=10_000, example=5)
        checks.real_number("max_gradient_norm", self.max_gradient_norm, above=0, example=1.0)
        checks.real_number("target_kl", self.target_kl, above=0, example=0.01)
        checks.truth_value("adaptive", self.adaptive)
        checks.real_number("memory_rate", self.memory_rate, minimum=0, example=0.1)

    def optimizer(
        self, params: Params, rate_scale: jax.Array | float = 1.0,
        deviation: Params | None = None, memory: Params | None = None,
    ) -> optax.GradientTransformation:
        """Adam on flat gradients of bounded norm, its rate scaled for all but the deviation.

        A deviation that is a parameter of its own (`log_std`) moves the policy in every state at
        once. At a rate that moves the means by enough it would be gone before they are learned.

        What is remembered tells episodes of a batch apart, and so can fit the noise in each one's
        advantages. At the rate of the other weights that takes up most of the divergence that an
        update may use, and the rate falls to a quarter of what it is without memory.

        Args:
          params: of the policy.
          rate_scale: [].
          deviation: which of them are a deviation, 0 or 1 each; None for none.
          memory: which of them make or read what is remembered, `memory_mask`; None for none.
        """
        if deviation is None:
            deviation = jax.tree.map(lambda _: 0.0, params)
        scales, _ = ravel_pytree(jax.tree.map(
            lambda x, m: jnp.broadcast_to(jnp.where(m > 0, 1.0, rate_scale), x.shape),
            params, deviation,
        ))
        if memory is not None:
            of_memory, _ = ravel_pytree(jax.tree.map(
                lambda x, m: jnp.broadcast_to(jnp.where(m, self.memory_rate, 1.0), x.shape),
                params, memory,
            ))
            scales *= of_memory
        return optax.chain(
            optax.clip_by_global_norm(self.max_gradient_norm),
            optax.adam(self.learning_rate, eps=1e-5),
            optax.stateless(lambda updates, _: updates * scales),
        )

    def init(self, params: Params) -> PPOState:
        return PPOState(
            init_optimizer(self.optimizer(params), params), jnp.float32(1.0),
            jnp.float32(self.initial_coefficient()),
        )

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        of_all = super().for_large(num_envs, unroll_length)
        given = not isinstance(self.parts, SizeDependent)
        parts = self.parts if given else largest_divisor(num_envs, 4)
        if parts == 1:
            return of_all
        aim = 0.1 * kl_scale(num_envs, unroll_length)
        limit = max(aim, float(type(self).max_kl))
        if not isinstance(self.max_kl, SizeDependent):
            aim = self.max_kl
        elif not isinstance(self.target_kl, SizeDependent) and checks.is_number(self.target_kl):
            limit = max(limit, self.target_kl)
        return of_all | {
            "parts": parts, "max_kl": limit, "target_kl": 0.8 * aim, "epochs": 4,
            "minibatches": largest_divisor(max(num_envs // parts * unroll_length, 1), 8),
        }

    def initial_coefficient(self) -> jax.Array | float:
        """The weight of the KL in the loss of the first update, []."""
        return 0.0

    def loss(
        self, new: Any, old: Any, ratio: jax.Array, advantage: jax.Array, coefficient: jax.Array
    ) -> jax.Array:
        """What gradient steps bring down, without the entropy term, per state [B]."""
        raise NotImplementedError

    def losses(
        self, new: Any, samples: Samples, entropy_cost: jax.Array | float, coefficient: jax.Array,
        limits: Limits,
    ) -> tuple[jax.Array, jax.Array]:
        """(all of it, with weights and the entropy term; whether held, 0 or 1), [B] each."""
        ratio = jnp.exp(new.log_prob(samples.action) - samples.old_log_prob)
        loss = samples.gain_weight * self.loss(
            new, samples.old, ratio, samples.advantage, coefficient
        )
        loss -= samples.weight * entropy_cost * new.entropy()
        return loss, samples.weight * self.outside_clip(ratio)

    def step(
        self, state: PPOState, params: Params, distribution_fn: DistributionFn, batch: Batch,
        limits: Limits, axis_name: str | None = None,
    ) -> tuple[Params, PPOState, dict[str, jax.Array]]:
        surrogate = self.surrogate(params, distribution_fn, batch, axis_name)
        shape = batch.advantage.shape
        data = Samples(
            batch.observation, batch.action, batch.advantage, batch.weights(),
            surrogate.advantage_weight.reshape(shape),
            *jax.tree.map(
                lambda x: x.reshape(*shape, *x.shape[1:]), (surrogate.old, surrogate.old_log_prob)
            ),
        )

        def loss_fn(params, *minibatch):
            samples = Samples(*minibatch)
            new = distribution_fn(params, samples.observation)
            losses = self.losses(
                new, samples, surrogate.entropy_cost, state.kl_coefficient, limits
            )
            # One sum for both, and one launch.
            return tuple(jnp.mean(jnp.stack(losses), axis=1))

        with jax.named_scope("policy_gradient"):
            optimizer = self.optimizer(
                params, state.rate_scale, deviation_mask(distribution_fn, params),
                memory_mask(distribution_fn, params),
            )
            new_params, optimizer_state, _, skipped, outside = minibatch_sgd(
                loss_fn, optimizer, params, state.optimizer, data, batch.environment_keys,
                self.epochs, self.minibatches, axis_name,
            )
        # Nothing may move where rewards say nothing, and nothing did where no gradient was finite.
        # Nor can a move be judged by a batch that is not finite itself.
        taught = (skipped < outside.size) & (batch.trust > 0) & surrogate.finite()
        with jax.named_scope("line_search"):
            move = jax.tree.map(lambda n, p: jnp.where(taught, n - p, 0.0), new_params, params)
            move = self.shorten_deviation(surrogate, move, limits)
            kept = self.keep_inside(surrogate, move, limits)
        accepted = kept.accepted & taught
        measured = jax.tree.map(
            lambda m, u: jnp.where(accepted, m, u), kept.aux, surrogate.unmoved()
        )
        scale = jnp.where(accepted, kept.scale, 0.0)
        new_params = jax.tree.map(
            lambda p, m: jnp.where(accepted, p + scale * m, p), params, move
        )
        metrics = policy_metrics(
            measured, surrogate.predicted_kl(move, scale), accepted, scale, limits
        )
        metrics["policy/skipped"] = skipped
        metrics["policy/learning_rate"] = self.learning_rate * state.rate_scale
        new_state = dataclasses.replace(state, optimizer=optimizer_state)
        if self.adaptive:
            # Of a batch that may use a share of the trust region, that share is asked for.
            share = jnp.where(batch.trust > 0, batch.trust, 1.0)
            too_far, too_short = self.judge(measured["kl"] / share, scale < 1)
            # With some of the steps left out a short way is no sign of too small a rate.
            new_state = self.adapt(new_state, too_far, too_short & (skipped == 0))
        # An update that was not made teaches nothing, neither the optimiser nor what adapts.
        state = jax.tree.map(lambda n, o: jnp.where(taught, n, o), new_state, state)
        metrics.update(self.own_metrics(outside, state.kl_coefficient, axis_name))
        return new_params, state, metrics

    def shorten_deviation(self, surrogate: Surrogate, move: Params, limits: Limits) -> Params:
        """A deviation that is a parameter is drawn back apart to its limit, and nothing with it."""
        if limits.kl_std is None:
            return move
        mask = deviation_mask(surrogate.distribution_fn, move)
        alone = jax.tree.map(jnp.multiply, move, mask)
        over = surrogate.at(tree_add(surrogate.old_params, alone))["kl_std"] / limits.kl_std
        # A little inside, for the divergence is not quite quadratic.
        short = jnp.where(over > 1.0, 0.95 * jax.lax.rsqrt(jnp.maximum(over, 1.0)), 1.0)
        return jax.tree.map(lambda x, m: x * (m * short + (1.0 - m)), move, mask)

    def keep_inside(self, surrogate: Surrogate, move: Params, limits: Limits) -> LineSearch:
        """How much of a move to take for it to be within `limits`."""
        def accept(scale):
            candidate = tree_add(surrogate.old_params, move, scale)
            measured = surrogate.at(candidate)
            good = limits.hold(measured) & finite(candidate)
            return good & jnp.isfinite(measured["gain"]), measured

        return backtracking_line_search(accept, surrogate.unmoved(), factor=0.7, max_trials=20)

    def judge(
        self, kl: jax.Array, drawn_back: jax.Array | bool = False
    ) -> tuple[jax.Array, jax.Array]:
        """Whether an update went (too far, too short), bool [] each.

        Too far is more than 1.5 `target_kl`, or out of the trust region; too short is less than
        `target_kl` / 1.5.
        """
        target = self.target_kl / self.parts
        too_far = (kl > 1.5 * target) | drawn_back
        return too_far, (kl < target / 1.5) & ~too_far

    def adapt(self, state: PPOState, too_far: jax.Array, too_short: jax.Array) -> PPOState:
        """What the next update starts from, given what became of this one."""
        raise NotImplementedError

    def outside_clip(self, ratio: jax.Array) -> jax.Array:
        """Whether the loss holds a ratio fixed, 0 or 1, [B]."""
        return jnp.zeros_like(ratio)

    def own_metrics(
        self, outside: jax.Array, coefficient: jax.Array, axis_name: str | None
    ) -> dict[str, jax.Array]:
        """Metrics that this form alone has, [] each; `outside`: which ratios were clipped, [B]."""
        raise NotImplementedError


def with_adapted_rate(state: PPOState, too_far: jax.Array, too_short: jax.Array) -> PPOState:
    """A learning rate lower by a tenth after an update that went too far, higher after one that
    went too short, between a tenth and ten times what was given."""
    factor = jnp.where(too_far, 1 / 1.1, jnp.where(too_short, 1.1, 1.0))
    return dataclasses.replace(state, rate_scale=jnp.clip(state.rate_scale * factor, 0.1, 10.0))


def clipped_gain(
    ratio: jax.Array, advantage: jax.Array, clip: jax.Array | float
) -> jax.Array:
    """min(r Â, clip(r, 1 - ε, 1 + ε) Â) of each state, [B] (arXiv:1707.06347, equation 7)."""
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return jnp.minimum(ratio * advantage, clipped * advantage)


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class PPO(ProximalPolicy):
    """PPO with the clipped surrogate (Schulman et al., 2017, arXiv:1707.06347, equation 7).

    Adaptive, the learning rate falls by a tenth after an update that moved the policy by more than
    1.5 `target_kl`, or that had to be drawn back into the trust region, and rises by a tenth after
    one that moved it by less than `target_kl` / 1.5, between a tenth and ten times `learning_rate`.
    One rate moves different policies by very different amounts, and each of them further the
    smaller its deviation has become. (rsl_rl's adaptive schedule does this per minibatch.) A
    deviation that is a parameter, `log_std`, keeps `learning_rate` as it is given.

    Attributes:
      clip: ε; ratios beyond 1 ± ε bring no further gain.
    """

    name: ClassVar[str] = "ppo"

    clip: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        checks.real_number("clip", self.clip, above=0, maximum=1, example=0.2)

    def adapt(self, state, too_far, too_short):
        return with_adapted_rate(state, too_far, too_short)

    def loss(self, new, old, ratio, advantage, coefficient):
        return -clipped_gain(ratio, advantage, self.clip)

    def outside_clip(self, ratio):
        return (jnp.abs(ratio - 1.0) > self.clip).astype(jnp.float32)

    def own_metrics(self, outside, coefficient, axis_name):
        """The share of probability ratios outside 1 ± clip."""
        return {"policy/clip_fraction": mean_over(jnp.mean(outside), axis_name)}


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class PPOPenalty(ProximalPolicy):
    """PPO with a KL penalty (arXiv:1707.06347, equation 8).

    L(θ) = E[ratio Â - β D_KL(π_old || π_θ)]. Adaptive, β doubles after an update that moved the
    policy by more than 1.5 `target_kl`, or that had to be drawn back into the trust region, and
    halves after one that moved it by less than `target_kl` / 1.5; otherwise it stays at
    `kl_coefficient`.

    Attributes:
      kl_coefficient: β at the start.
    """

    name: ClassVar[str] = "ppo-kl"

    kl_coefficient: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        checks.real_number("kl_coefficient", self.kl_coefficient, above=0, example=1.0)
        numbers = checks.is_number(self.target_kl) and checks.is_number(self.max_kl)
        if numbers and self.target_kl > self.max_kl:
            raise checks.BadArgument(
                "target_kl", self.target_kl, f"must not exceed max_kl, {self.max_kl}"
            )

    def initial_coefficient(self):
        return self.kl_coefficient

    def loss(self, new, old, ratio, advantage, coefficient):
        return -(ratio * advantage - coefficient * old.kl_divergence(new))

    def adapt(self, state, too_far, too_short):
        factor = jnp.where(too_far, 2.0, jnp.where(too_short, 0.5, 1.0))
        # Bounded: a long stretch of tiny or huge updates must not take it out of reach.
        coefficient = jnp.clip(state.kl_coefficient * factor, 1e-4, 1e4)
        return dataclasses.replace(state, kl_coefficient=coefficient)

    def own_metrics(self, outside, coefficient, axis_name):
        """The coefficient of the penalty."""
        return {"policy/kl_coefficient": coefficient}
