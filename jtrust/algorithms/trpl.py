"""Trust region projection layers: a limit in every state, and not on the mean over states."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import by_size, kl_scale
from jtrust.algorithms.ppo import (
    PPOState,
    ProximalPolicy,
    Samples,
    clipped_gain,
    with_adapted_rate,
)
from jtrust.algorithms.surrogate import (
    DistributionFn,
    Limits,
    Surrogate,
    deviation_mask,
    within,
)
from jtrust.algorithms.trees import Params, finite, tree_add
from jtrust.distributions import DiagonalGaussian
from jtrust.environments.base import Box, Environment
from jtrust.hyperparameters import hyperparameters, static
from jtrust.trust_region import (
    PROJECTIONS,
    LineSearch,
    Projection,
    backtracking_line_search,
    mean_over,
)

# Of a move that is too long: the part of the length that a quadratic gives it, and the least.
_MARGIN, _SHORTEST = 0.97, 0.01


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StateLimits(Limits):
    """Limits of the mean over states, and of each state.

    Attributes:
      mean_bound: ε_μ, of d_mean in every state, [].
      cov_bound: ε_Σ, of d_cov in every state, [].
      of_kl: whether these are divergences in nats, so that their sum bounds `policy/kl_max`.
    """

    mean_bound: jax.Array | float
    cov_bound: jax.Array | float
    of_kl: bool = static(False)

    def hold(self, measured: dict[str, jax.Array]) -> jax.Array:
        in_states = within(measured["mean_constraint_max"], self.mean_bound)
        in_states &= within(measured["cov_constraint_max"], self.cov_bound)
        return super().hold(measured) & in_states

    def exceeded(self, measured: dict[str, jax.Array]) -> jax.Array:
        return jnp.maximum(super().exceeded(measured), jnp.maximum(
            measured["mean_constraint_max"] / self.mean_bound,
            measured["cov_constraint_max"] / self.cov_bound,
        ))

    def metrics(self, measured: dict[str, jax.Array]) -> dict[str, jax.Array]:
        found = super().metrics(measured) | {
            "policy/mean_constraint_max": measured["mean_constraint_max"],
            "policy/cov_constraint_max": measured["cov_constraint_max"],
            "policy/mean_constraint_limit": jnp.asarray(self.mean_bound, jnp.float32),
            "policy/cov_constraint_limit": jnp.asarray(self.cov_bound, jnp.float32),
        }
        if self.of_kl:
            limit = jnp.asarray(self.mean_bound + self.cov_bound, jnp.float32)
            found["policy/kl_max_limit"] = limit
        return found


class StateSurrogate(Surrogate):
    """Measures beside the means over states how far the one that moved most has moved."""

    def __init__(self, projection: Projection, *arguments: Any):
        super().__init__(*arguments)
        _check_gaussian(self.old)
        self._projection = projection

    def by_state(self, new, of_mean, of_deviation):
        """The distances of the projection; for "kl" those of either direction, the larger of both.

        The layer bounds D_KL(π || π_old), `policy/kl_max` is of D_KL(π_old || π): both are held.
        """
        mean, cov = self._projection.distance(new.mean, new.log_std, self.old.mean,
                                              self.old.log_std)
        if self._projection.name == "kl":
            mean, cov = jnp.maximum(mean, of_mean), jnp.maximum(cov, of_deviation)
        return super().by_state(new, of_mean, of_deviation) | {
            "mean_constraint_max": mean, "cov_constraint_max": cov,
        }

    def unmoved(self):
        still = dict.fromkeys(("mean_constraint_max", "cov_constraint_max"), jnp.float32(0))
        return super().unmoved() | still


@hyperparameters
@dataclasses.dataclass(frozen=True, kw_only=True)
class TRPL(ProximalPolicy):
    """Trust region projection layers (Otto et al., 2021, arXiv:2101.09207), diagonal Gaussians.

    Gradient steps as PPO's, but with no clip: behind the network stands a layer that projects what
    it says of each state onto the trust region around the old policy there, and the gradient goes
    through it. They maximise

        E[π̃(a|s) / π_old(a|s) Â] - α E[d(π̃(·|s), π_θ(·|s))],

    whose second term, in which π̃ is a constant, has the network follow its projection. The policy
    that acts is the network alone, without the layer, so that it needs no old one. So after the
    last step the distances in all states of the batch are measured, and the whole move is drawn
    back along the straight line until every one of them is inside.

    The learning rate adapts as PPO's: down by a tenth after an update that had to be drawn back, or
    of a mean divergence above 1.5 `target_kl`.

    Attributes:
      projection: "kl", "w2" or "frobenius" (`jtrust.trust_region.projections`).
      mean_bound: ε_μ, of the distance between means in every state.
      cov_bound: ε_Σ, of the distance between covariances in every state.
      trust_region_coeff: α.
      clip: ε of PPO, whose clipped surrogate then takes the place of the first term; None, as in
        the paper, for none.
    """

    name: ClassVar[str] = "trpl"

    projection: str = static("kl")
    mean_bound: float = by_size(0.05)
    cov_bound: float = by_size(0.002)
    trust_region_coeff: float = 1.0
    clip: float | None = static(None)

    def __post_init__(self):
        super().__post_init__()
        checks.one_of("projection", self.projection, PROJECTIONS)
        checks.real_number("mean_bound", self.mean_bound, above=0, example=0.05)
        checks.real_number("cov_bound", self.cov_bound, above=0, example=0.002)
        checks.real_number(
            "trust_region_coeff", self.trust_region_coeff, minimum=0, example=1.0
        )
        if self.clip is not None:
            checks.real_number("clip", self.clip, above=0, maximum=1, example=0.2)

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        of_all = super().for_large(num_envs, unroll_length)
        further = 8.0 * kl_scale(num_envs, unroll_length)
        return of_all | {
            name: max(further, 1.0) * float(getattr(type(self), name))
            for name in ("mean_bound", "cov_bound")
        }

    def check_environment(self, environment: Environment) -> None:
        if not isinstance(environment.action, Box):
            raise checks.BadArgument(
                "algorithm", self.name,
                "projects Gaussian policies, and these actions are discrete; take trpo, npg, ppo "
                "or ppo-kl",
            )

    def surrogate(self, params, distribution_fn, batch, axis_name):
        return StateSurrogate(
            PROJECTIONS[self.projection], params, distribution_fn, batch, self.entropy_cost,
            axis_name,
        )

    def limits(self, batch: Batch) -> StateLimits:
        of_means = super().limits(batch)
        return StateLimits(
            of_means.kl, of_means.kl_std, self.mean_bound * batch.trust,
            self.cov_bound * batch.trust, self.projection == "kl",
        )

    def limits_of_parts(self, limits: Limits) -> Limits:
        """Moves of the means in directions of their own add up by their distances, those of the
        deviations, all the same way, by their lengths."""
        limits = super().limits_of_parts(limits)
        assert isinstance(limits, StateLimits)
        return dataclasses.replace(
            limits, mean_bound=limits.mean_bound / self.parts,
            cov_bound=limits.cov_bound / self.parts**2,
        )

    def losses(self, new, samples: Samples, entropy_cost, coefficient, limits: Limits):
        assert isinstance(limits, StateLimits)
        new, old = new.broadcast(), samples.old
        layer = PROJECTIONS[self.projection]
        # Nothing will move where the limits are zero; they are as wide as ever, so that gradients
        # are finite.
        wide = limits.mean_bound > 0
        bounds = (
            jnp.where(wide, limits.mean_bound, self.mean_bound),
            jnp.where(wide, limits.cov_bound, self.cov_bound),
        )
        of_mean, of_cov = layer.distance(new.mean, new.log_std, old.mean, old.log_std)
        outside = (of_mean > bounds[0]) | (of_cov > bounds[1])
        projected = type(new)(*layer(new.mean, new.log_std, old.mean, old.log_std, *bounds))
        loss, _ = super().losses(projected, samples, entropy_cost, coefficient, limits)
        target = jax.lax.stop_gradient(projected)
        apart = sum(layer.distance(new.mean, new.log_std, target.mean, target.log_std))
        loss += samples.weight * self.trust_region_coeff * apart
        return loss, samples.weight * outside

    def loss(self, new, old, ratio, advantage, coefficient):
        if self.clip is None:
            return -ratio * advantage
        return -clipped_gain(ratio, advantage, self.clip)

    def shorten_deviation(self, surrogate, move, limits):
        mask = deviation_mask(surrogate.distribution_fn, move)
        if not any(jax.tree.leaves(mask)):
            return move
        alone = jax.tree.map(jnp.multiply, move, mask)
        short = _shortened(limits.exceeded(surrogate.at(tree_add(surrogate.old_params, alone))))
        return jax.tree.map(lambda x, m: x * (m * short + (1.0 - m)), move, mask)

    def keep_inside(self, surrogate: Surrogate, move: Params, limits: Limits) -> LineSearch:
        """The search begins where a quadratic through the largest excess meets its limit."""
        start = _shortened(limits.exceeded(surrogate.at(tree_add(surrogate.old_params, move))))

        def accept(scale):
            candidate = tree_add(surrogate.old_params, move, scale * start)
            measured = surrogate.at(candidate)
            good = limits.hold(measured) & finite(candidate)
            return good & jnp.isfinite(measured["gain"]), measured

        search = backtracking_line_search(
            accept, surrogate.unmoved(), factor=0.9, max_trials=40
        )
        return search._replace(scale=search.scale * start)

    def adapt(self, state: PPOState, too_far: jax.Array, too_short: jax.Array) -> PPOState:
        return with_adapted_rate(state, too_far, too_short)

    def own_metrics(self, outside, coefficient, axis_name):
        return {"policy/projected": mean_over(jnp.mean(outside), axis_name)}


def _shortened(over: jax.Array) -> jax.Array:
    """The part of a move at which a quadratic distance, `over` its limit, meets it, []."""
    part = jnp.maximum(_MARGIN * jax.lax.rsqrt(jnp.maximum(over, 1.0)), _SHORTEST)
    return jnp.where(over > 1.0, part, 1.0)


def _check_gaussian(distribution: DistributionFn | Any) -> None:
    if not isinstance(distribution, DiagonalGaussian):
        raise checks.BadArgument(
            "algorithm", TRPL.name,
            f"projects Gaussian policies, and this one is of {type(distribution).__name__}; take "
            "trpo, npg, ppo or ppo-kl",
        )
