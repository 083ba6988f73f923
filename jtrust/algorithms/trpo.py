"""Trust region policy optimisation, and the natural policy gradient that it refines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms.actor_critic import ActorCritic
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import kl_scale
from jtrust.algorithms.surrogate import (
    DistributionFn,
    Limits,
    Surrogate,
    deviation_mask,
    policy_metrics,
)
from jtrust.algorithms.trees import Params, finite, tree_add, tree_dot
from jtrust.hyperparameters import hyperparameters, static
from jtrust.trust_region import backtracking_line_search, conjugate_gradient


@dataclasses.dataclass(frozen=True, kw_only=True)
class _NaturalGradient(ActorCritic):
    """The step that TRPO and NPG share: the largest natural-gradient step in the trust region.

    Attributes:
      damping: multiple of the identity added to the Fisher matrix while solving. What the batch
        hardly bears out lies in directions of little Fisher information, where a small damping
        lets noise take most of the step.
      cg_iterations: conjugate-gradient iterations, one Fisher-vector product each.
      fisher_stride: the Fisher matrix is averaged over every `fisher_stride`-th time step of the
        batch. It shapes the step and never its limit: the real KL is taken over the whole batch.
    """

    damping: float = 0.1
    cg_iterations: int = static(10)
    fisher_stride: int = static(4)

    def __post_init__(self):
        super().__post_init__()
        checks.real_number("damping", self.damping, minimum=0, example=0.1)
        checks.whole_number("cg_iterations", self.cg_iterations, maximum=10_000, example=10)
        checks.whole_number("fisher_stride", self.fisher_stride, maximum=10_000, example=4)

    def init(self, params: Params) -> Any:
        return ()

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        return super().for_large(num_envs, unroll_length) | {
            "max_kl": 0.08 * kl_scale(num_envs, unroll_length)
        }

    def limits_of_parts(self, limits: Limits) -> Limits:
        """Steps of the means in directions of their own add up by their divergences."""
        limits = super().limits_of_parts(limits)
        return dataclasses.replace(limits, kl=limits.kl / self.parts)

    def step(
        self, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
        limits: Limits, axis_name: str | None = None,
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        """maximise L(θ) subject to E_s[D_KL(π_old || π_θ)] <= δ, that of `limits`.

        Schulman et al., 2015 (arXiv:1502.05477), appendix C: with g = ∇L and F the Fisher
        matrix, d = F⁻¹g by conjugate gradients, β = sqrt(2 δ / dᵀFd), θ = θ_old + α β d.
        """
        surrogate = self.surrogate(params, distribution_fn, batch, axis_name)
        with jax.named_scope("policy_gradient"):
            gradient = surrogate.gradient()
        with jax.named_scope("fisher_vector_products"):
            fisher = surrogate.fisher(self.damping, self.fisher_stride)
            direction, residual = conjugate_gradient(fisher, gradient, self.cg_iterations)
            # dᵀ(F + λI)d = dᵀg without another product, since conjugate gradients leave a
            # residual at right angles to d. The damping steers the direction, but is no part
            # of the quadratic model.
            curvature = tree_dot(direction, gradient)
            curvature -= self.damping * tree_dot(direction, direction)
            full_step, predicted = self._longest(
                surrogate, direction, curvature, fisher, limits
            )
        with jax.named_scope("line_search"):
            scale, accepted, measured = self.choose_scale(surrogate, params, full_step, limits)
            # Where nothing may move, a step of length zero was found good at once.
            accepted &= limits.kl > 0
            scale = jnp.where(accepted, scale, 0.0)
            measured = jax.tree.map(
                lambda m, u: jnp.where(accepted, m, u), measured, surrogate.unmoved()
            )
        new_params = jax.tree.map(
            lambda p, d: jnp.where(accepted, p + scale * d, p), params, full_step
        )
        metrics = policy_metrics(measured, scale**2 * predicted, accepted, scale, limits)
        norm = jnp.sqrt(tree_dot(gradient, gradient))
        sound = finite((gradient, direction)) & ((curvature > 0) | (norm == 0))
        metrics["policy/skipped"] = 1.0 - sound.astype(jnp.float32)
        metrics["policy/cg_residual"] = residual / jnp.where(norm > 0, norm, 1.0)
        return new_params, state, metrics

    def _longest(
        self, surrogate: Surrogate, direction: Params, curvature: jax.Array,
        fisher: Callable[[Params], Params], limits: Limits,
    ) -> tuple[Params, jax.Array | float]:
        """The longest step along `direction` that the quadratic model allows, and its KL, [].

        Where the deviation has a limit and is a parameter of its own, F has no entries between it
        and the rest, so it is shortened apart and the rest takes what is left. Deviations that the
        network gives for each state are held by the search alone, which shortens the whole step.
        """
        def length(kl: jax.Array | float, curvature: jax.Array) -> jax.Array:
            return jnp.sqrt(2.0 * kl / jnp.where(curvature > 0, curvature, jnp.inf))

        whole = length(limits.kl, curvature)
        if limits.kl_std is None:
            return jax.tree.map(lambda d: whole * d, direction), limits.kl
        mask = deviation_mask(surrogate.distribution_fn, direction)
        of_deviation = jax.tree.map(jnp.multiply, direction, mask)
        undamped = tree_add(fisher(of_deviation), of_deviation, -self.damping)
        deviation_curvature = tree_dot(of_deviation, undamped)
        short = jnp.minimum(whole, length(limits.kl_std, deviation_curvature))
        kl_std = 0.5 * short**2 * deviation_curvature
        rest = length(limits.kl - kl_std, curvature - deviation_curvature)
        step = jax.tree.map(lambda d, m: d * (m * short + (1.0 - m) * rest), direction, mask)
        return step, limits.kl

    def choose_scale(
        self, surrogate: Surrogate, params: Params, full_step: Params, limits: Limits
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        """How much of the full step to take: (α [], accepted [], what was measured there)."""
        raise NotImplementedError


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPO(_NaturalGradient):
    """Trust region policy optimisation (Schulman et al., 2015, arXiv:1502.05477).

    The step is shortened until the real mean KL divergence is at most `max_kl` and the real
    surrogate has improved, both on the whole batch; where no length will do, the old policy stays.

    Attributes:
      backtrack_factor: ratio of successive step lengths.
      max_backtracks: step lengths tried before the update is refused.
    """

    name: ClassVar[str] = "trpo"

    backtrack_factor: float = 0.9
    max_backtracks: int = static(30)

    def __post_init__(self):
        super().__post_init__()
        checks.real_number(
            "backtrack_factor", self.backtrack_factor, above=0, maximum=0.999, example=0.9
        )
        checks.whole_number("max_backtracks", self.max_backtracks, maximum=1000, example=30)

    def choose_scale(self, surrogate, params, full_step, limits):
        def accept(scale):
            candidate = tree_add(params, full_step, scale)
            measured = surrogate.at(candidate)
            # A comparison with NaN is false, so only the parameters need a look of their own.
            good = limits.hold(measured) & (measured["gain"] > 0) & finite(candidate)
            return good | (limits.kl <= 0), measured

        search = backtracking_line_search(
            accept, surrogate.unmoved(), factor=self.backtrack_factor,
            max_trials=self.max_backtracks,
        )
        return search.scale, search.accepted, search.aux


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class NPG(_NaturalGradient):
    """Natural policy gradient (Kakade, 2001) with the step length of the quadratic model.

    There is no search and the surrogate is not looked at. The real KL divergence is: where it
    exceeds `max_kl`, the step is shortened once to where a quadratic through the measured value
    meets the limit, and refused if it is still outside.
    """

    name: ClassVar[str] = "npg"

    def choose_scale(self, surrogate, params, full_step, limits):
        full = surrogate.at(tree_add(params, full_step))
        over = limits.exceeded(full)
        fits = limits.hold(full)

        def shorten():
            # A little inside the limit: the cubic term that made the step too long is still there.
            scale = 0.95 * jax.lax.rsqrt(jnp.maximum(over, 1.0))
            return scale, surrogate.at(tree_add(params, full_step, scale))

        scale, measured = jax.lax.cond(fits, lambda: (jnp.float32(1.0), full), shorten)
        accepted = limits.hold(measured) & finite(tree_add(params, full_step, scale))
        return scale, accepted, measured
