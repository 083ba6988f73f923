"""Constrained policy optimisation."""

from __future__ import annotations

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jtrust import checks
from jtrust.algorithms.constrained import Constrained, costs_of
from jtrust.algorithms.cost_surrogate import CostSurrogate
from jtrust.algorithms.surrogate import Limits, policy_metrics
from jtrust.algorithms.trees import Params, finite, tree_add
from jtrust.algorithms.trpo import TRPO
from jtrust.hyperparameters import hyperparameters
from jtrust.trust_region import (
    MOST_CONSTRAINTS,
    ConstrainedStep,
    LineSearch,
    backtracking_line_search,
    conjugate_gradient,
    constrained_step,
)
from jtrust.trust_region.constrained_step import solve_positive

# How often the trust region is measured anew without the damping.
_ROUNDS = 4


class _Plan(NamedTuple):
    """A step, and what the models say of it.

    Attributes:
      step: like the parameters.
      solved: of what it was made.
      kl: of the quadratic model, [].
      residual: of the conjugate gradients for the objective, as a share of its gradient, [].
      sound: whether all was finite, bool [].
    """

    step: Params
    solved: ConstrainedStep
    kl: jax.Array
    residual: jax.Array
    sound: jax.Array


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class CPO(Constrained, TRPO):
    """Constrained policy optimisation (Achiam et al., 2017, arXiv:1705.10528).

    Each update goes where the surrogate rises most, of all places in the trust region at which
    every cost, to first order, is within its limit (equation 10). Where there is none it recovers:
    it brings the costs down and does not look at the reward (equation 14). The step is shortened
    until the real mean KL divergence is at most `max_kl`, no cost that was within its limit is
    beyond it by the surrogate, none that was beyond rises, and, where all were within, the
    surrogate objective has improved; where no length will do, the old policy stays.

    With its settings those of TRPO. A rollout is taken whole, not in `parts`.
    """

    name: ClassVar[str] = "cpo"

    def __post_init__(self):
        super().__post_init__()
        if self.parts != 1:
            raise checks.BadArgument("parts", self.parts, "must be 1: CPO takes a rollout whole")
        if len(self.cost_names) > MOST_CONSTRAINTS:
            raise checks.BadArgument(
                "cost_limits", self.cost_limits,
                f"CPO takes at most {MOST_CONSTRAINTS} costs; trpo-lagrangian takes more",
            )

    def step(self, state, params, distribution_fn, batch, limits, axis_name=None):
        """Solves equation 10 in the span of the natural gradients of objective and costs."""
        costs = costs_of(batch)
        surrogate = CostSurrogate(
            params, distribution_fn, batch, costs, self.entropy_cost, axis_name
        )
        # Per step, as the surrogates are.
        excess = (costs.estimate - self.limits_of_costs()) / costs.episode_length
        plan = self._plan(surrogate, excess, limits)
        with jax.named_scope("line_search"):
            search, of_costs = self._shorten(surrogate, plan.step, excess, limits)
            accepted = search.accepted & (limits.kl > 0) & plan.sound
            scale = jnp.where(accepted, search.scale, 0.0)
            measured = jax.tree.map(
                lambda m, u: jnp.where(accepted, m, u), search.aux[0], surrogate.unmoved()
            )
        new_params = jax.tree.map(
            lambda p, d: jnp.where(accepted, p + scale * d, p), params, plan.step
        )
        metrics = policy_metrics(measured, scale**2 * plan.kl, accepted, scale, limits)
        metrics["policy/skipped"] = 1.0 - plan.sound.astype(jnp.float32)
        metrics["policy/cg_residual"] = plan.residual
        metrics["policy/recovery"] = 1.0 - plan.solved.feasible.astype(jnp.float32)
        metrics |= self.cost_metrics(plan.solved.multipliers)
        predicted = jnp.where(accepted, of_costs, 0.0) * costs.episode_length
        metrics |= {
            f"cost/{name}/surrogate_change": predicted[i]
            for i, name in enumerate(self.cost_names)
        }
        return new_params, state, metrics

    def _plan(self, surrogate: CostSurrogate, excess: jax.Array, limits: Limits) -> _Plan:
        """The step that the models of objective, costs and KL ask for.

        Conjugate gradients leave natural gradients v_j not quite exact. In the space that they
        span the problem is solved for what they are: with G the gradients and V the v_j, its
        metric is Vᵀ(F + damping I)V and its gradients are GᵀV. Damping steers the direction and is
        no part of the trust region, which is widened until the undamped KL of the step is `max_kl`.
        """
        gradient, unravel = ravel_pytree(surrogate.gradient())
        with jax.named_scope("policy_gradient"):
            rows = jnp.concatenate([gradient[None], surrogate.cost_gradients()])
        # On a common scale, so that none is lost beside the others in float32.
        sizes = jnp.linalg.norm(rows, axis=1)
        scale = jnp.where(sizes > 0, sizes, 1.0)
        rows = rows / scale[:, None]
        with jax.named_scope("fisher_vector_products"):
            fisher = surrogate.fisher(self.damping, self.fisher_stride)
            flat = lambda v: ravel_pytree(fisher(unravel(v)))[0]  # noqa: E731
            solve = lambda v: conjugate_gradient(flat, v, self.cg_iterations)  # noqa: E731
            natural, residuals = jax.vmap(solve)(rows)
            damped = _products(natural, jax.vmap(flat)(natural))
        plain = damped - self.damping * _products(natural, natural)
        solved, weights = _solve(
            _products(natural, rows), damped, plain, excess / scale[1:], limits.kl
        )
        step = unravel(jnp.einsum("i,ip->p", weights, natural, precision="highest"))
        kl = 0.5 * weights @ plain @ weights
        # Back to the units of the objective and of costs.
        solved = solved._replace(multipliers=solved.multipliers * scale[0] / scale[1:])
        return _Plan(step, solved, kl, residuals[0], finite((rows, natural, step)))

    def _shorten(
        self, surrogate: CostSurrogate, full_step: Params, excess: jax.Array, limits: Limits
    ) -> tuple[LineSearch, jax.Array]:
        """How much of the step to take, and how much each cost changes by it, per step [K]."""
        most = jnp.maximum(-excess, 0.0)
        bounded = jnp.all(excess <= 0)

        def accept(scale):
            candidate = tree_add(surrogate.old_params, full_step, scale)
            measured, rates = surrogate.at(candidate), surrogate.rates_at(candidate)
            good = limits.hold(measured) & finite(candidate) & jnp.all(rates <= most)
            # Where a cost is to come down the objective may have to.
            good &= ~bounded | (measured["gain"] > 0)
            return good | (limits.kl <= 0), (measured, rates)

        search = backtracking_line_search(
            accept, (surrogate.unmoved(), jnp.zeros_like(excess)), factor=self.backtrack_factor,
            max_trials=self.max_backtracks,
        )
        return search, search.aux[1]


def _products(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner products of rows, [K, P] x [K, P] -> [K, K]."""
    return jnp.einsum("ip,jp->ij", a, b, precision="highest")


def _solve(
    along: jax.Array, damped: jax.Array, plain: jax.Array, excess: jax.Array,
    max_kl: jax.Array | float,
) -> tuple[ConstrainedStep, jax.Array]:
    """The solution in the span of natural gradients: (of what it is made, weight of each [1 + K]).

    Args:
      along: what each natural gradient (rows) changes of each gradient's quantity, [1 + K, 1 + K].
      damped, plain: metrics with and without damping, [1 + K, 1 + K].
      excess: [K].
      max_kl: by the plain metric.
    """
    ridge = 1e-6 * jnp.diag(jnp.diagonal(damped)) + 1e-20 * jnp.eye(damped.shape[0])
    sizes = jnp.sqrt(jnp.diagonal(damped + ridge))
    unit = (damped + ridge) / (sizes[:, None] * sizes)
    dual = solve_positive(unit, along / sizes[:, None]) / sizes[:, None]
    gram = along.T @ dual

    def weights_of(solved: ConstrainedStep) -> jax.Array:
        return dual @ jnp.concatenate([solved.objective[None], solved.constraints])

    def measured(widened: jax.Array) -> jax.Array:
        """By how much the region may be wider than `max_kl`, for the step that it gives."""
        weights = weights_of(constrained_step(gram, excess, widened * max_kl))
        of_damped, of_plain = weights @ damped @ weights, weights @ plain @ weights
        ratio = of_damped / jnp.where(of_plain > 0, of_plain, jnp.inf)
        return jnp.where(ratio > 1.0, jnp.minimum(ratio, 1e6), 1.0)

    widened = jnp.float32(1.0)
    for _ in range(_ROUNDS):
        widened = measured(widened)
    solved = constrained_step(gram, excess, widened * max_kl)
    weights = weights_of(solved)
    # What the rounds have left over is cut off, so that the model's KL is never above `max_kl`.
    kl = 0.5 * weights @ plain @ weights
    over = jnp.where(kl > max_kl, jnp.sqrt(max_kl / jnp.maximum(kl, 1e-30)), 1.0)
    return solved, over * weights
