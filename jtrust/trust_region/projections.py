"""Projections of diagonal Gaussians onto a trust region of their own in every state.

Otto et al., 2021, "Differentiable trust region layers for deep reinforcement learning"
(arXiv:2101.09207), section 4. For each state

    π̃ = argmin d(π̃, π_θ)  subject to  d_mean(π̃, π_old) <= ε_μ and d_cov(π̃, π_old) <= ε_Σ,

with one of three distances d = d_mean + d_cov. The mean and the covariance are projected apart. The
mean part of all three is a Mahalanobis distance by the old covariance, in the objective and in the
constraint, so its projection is the same, up to a factor of a half. With r = σ / σ_old, the
deviations' parts in the constraint are

    kl         ½ Σ (r² - 1 - log r²), that of D_KL(π || π_old): the reverse of `policy/kl`
    w2         Σ (1 - r)², Wasserstein-2 by the old precision, as in the objective
    frobenius  Σ (σ² - σ_old²)², which is not relative to the old deviations

Each projection has σ̃ᶜ = (1 - t) σ_oldᶜ + t σᶜ, with c = -2, 1 and 2, and t = 1 / (1 + η) of the
paper's multiplier η: in closed form for the last two, by the dual in one dimension for the first.
Everything is differentiable, and may be mapped, scanned and sharded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jtrust import checks

# Steps of the dual's solver: six give the bound to rounding for bounds from 1e-5 to 0.5 and
# deviations that moved by factors from 1.01 to e^15; two more are for what was not tried.
_STEPS = 8
# Logarithm of the largest ratio of variances that the dual looks at.
_LARGEST_LOG_RATIO = 30.0

Parts = tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class Projection:
    """One of the three.

    Attributes:
      name: "kl", "w2" or "frobenius".
      mean_factor: of the Mahalanobis distance in d_mean.
      power: c, of the deviations that are mixed.
      cov_distance: (log σ, log σ_old [..., A]) -> d_cov, [...].
      mixing: (log σ, log σ_old [..., A], ε_Σ [...]) -> t, [...], where d_cov is beyond ε_Σ.
    """

    name: str
    mean_factor: float
    power: float
    cov_distance: Callable[[jax.Array, jax.Array], jax.Array]
    mixing: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    def distance(
        self, mean: jax.Array, log_std: jax.Array, old_mean: jax.Array, old_log_std: jax.Array
    ) -> Parts:
        """(d_mean, d_cov) between two Gaussians, [...] each.

        Args:
          mean, log_std: of one, [..., A].
          old_mean, old_log_std: of the other, by whose covariance means are measured, [..., A].
        """
        z = (mean - old_mean) * jnp.exp(-old_log_std)
        of_mean = self.mean_factor * jnp.sum(z**2, axis=-1)
        return of_mean, self.cov_distance(log_std, old_log_std)

    def __call__(
        self, mean: jax.Array, log_std: jax.Array, old_mean: jax.Array, old_log_std: jax.Array,
        mean_bound: jax.Array | float, cov_bound: jax.Array | float,
    ) -> Parts:
        """The nearest Gaussian inside the region: (mean, log_std), [..., A] each.

        What is inside is returned as it is. No gradient goes to the old Gaussian.

        Args:
          mean, log_std: [..., A].
          old_mean, old_log_std: the same of the region's centre.
          mean_bound: ε_μ, above 0; [...] or a number.
          cov_bound: ε_Σ, above 0; [...] or a number.

        Raises:
          BadArgument: a bound that is not above 0, or arrays that are not of one shape.
        """
        checks.real_number("mean_bound", mean_bound, above=0, example=0.03)
        checks.real_number("cov_bound", cov_bound, above=0, example=0.001)
        shapes = [jnp.shape(x) for x in (mean, log_std, old_mean, old_log_std)]
        if len(set(shapes)) > 1 or not shapes[0]:
            raise checks.BadArgument(
                "mean", shapes, "must be of one shape [..., A] with log_std, old_mean and "
                "old_log_std"
            )
        old_mean, old_log_std = jax.lax.stop_gradient((old_mean, old_log_std))
        batch = shapes[0][:-1]
        mean_bound, cov_bound = (
            jnp.broadcast_to(jnp.asarray(x, jnp.result_type(mean)), batch)
            for x in (mean_bound, cov_bound)
        )
        of_mean, of_cov = self.distance(mean, log_std, old_mean, old_log_std)
        return (
            _project_mean(mean, old_mean, of_mean, mean_bound),
            self._project_log_std(log_std, old_log_std, of_cov, cov_bound),
        )

    def _project_log_std(
        self, log_std: jax.Array, old_log_std: jax.Array, distance: jax.Array, bound: jax.Array
    ) -> jax.Array:
        # Written so that NaN counts as outside, and is passed on.
        outside = ~(distance <= bound)[..., None]
        # Where the Gaussian is inside, another takes its place: a gradient that is infinite there
        # would be NaN though it is not chosen.
        beyond = jnp.where(outside, log_std, old_log_std + 1.0)
        t = self.mixing(beyond, old_log_std, bound)[..., None]
        change = jnp.log1p(t * jnp.expm1(self.power * (beyond - old_log_std))) / self.power
        return jnp.where(outside, old_log_std + change, log_std)


def _project_mean(
    mean: jax.Array, old_mean: jax.Array, distance: jax.Array, bound: jax.Array
) -> jax.Array:
    """μ̃ = (μ + ω μ_old) / (1 + ω), ω = sqrt(d_mean / ε_μ) - 1, where d_mean > ε_μ."""
    outside = ~(distance <= bound)
    share = jnp.sqrt(bound / jnp.where(outside, distance, bound))
    return jnp.where(outside[..., None], old_mean + share[..., None] * (mean - old_mean), mean)


def _closed_form(
    cov_distance: Callable[[jax.Array, jax.Array], jax.Array]
) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """t = 1 / (1 + η) with η = sqrt(d_cov / ε_Σ) - 1: the distance goes with the square of t."""
    def mixing(log_std: jax.Array, old_log_std: jax.Array, bound: jax.Array) -> jax.Array:
        distance = cov_distance(log_std, old_log_std)
        # Only what is outside is asked for; the rest has some t that is not used.
        return jnp.sqrt(bound / jnp.maximum(distance, bound))

    return mixing


def _kl_of_deviations(log_std: jax.Array, old_log_std: jax.Array) -> jax.Array:
    log_ratio = log_std - old_log_std
    return jnp.sum(0.5 * jnp.expm1(2.0 * log_ratio) - log_ratio, axis=-1)


def _w2_of_deviations(log_std: jax.Array, old_log_std: jax.Array) -> jax.Array:
    return jnp.sum(jnp.expm1(log_std - old_log_std) ** 2, axis=-1)


def _frobenius_of_deviations(log_std: jax.Array, old_log_std: jax.Array) -> jax.Array:
    change = jnp.exp(2.0 * old_log_std) * jnp.expm1(2.0 * (log_std - old_log_std))
    return jnp.sum(change**2, axis=-1)


def _kl_mixing(log_std: jax.Array, old_log_std: jax.Array, bound: jax.Array) -> jax.Array:
    log_ratio = jnp.clip(2.0 * (old_log_std - log_std), -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    return _dual(jnp.expm1(log_ratio), bound)


def _kl_along(u: jax.Array, change: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(f, df/du) at t = eᵘ of f(t) = ½ Σ (1/p - 1 + log p) with p = 1 + t `change`, [...] each.

    p is the projected precision over the old one, and f what d_cov makes of it.
    """
    step = jnp.exp(u)[..., None] * change
    log_p = jnp.log1p(step)
    value = 0.5 * jnp.sum(jnp.expm1(-log_p) + log_p, axis=-1)
    return value, 0.5 * jnp.sum((step / (1.0 + step)) ** 2, axis=-1)


@jax.custom_jvp
def _dual(change: jax.Array, bound: jax.Array) -> jax.Array:
    """t in (0, 1] with f(t) = `bound`: the dual of the KL projection, in one dimension.

    f rises, and log f is nearly linear in u = log t, with slope 2 near the old deviations: Newton's
    steps in these, and halves of the bracket where one would leave it. Their number is fixed, so an
    accelerator does not wait for the host.

    Args:
      change: σ_old² / σ² - 1, [..., A].
      bound: ε_Σ, [...].
    """
    largest = jnp.max(jnp.abs(change), axis=-1)
    # There p is at least a half, where ½ (1/p - 1 + log p) is below (p - 1)².
    inside = jnp.minimum(jnp.sqrt(bound / change.shape[-1]), 0.5)
    low = jnp.minimum(jnp.log(inside) - jnp.log(largest), 0.0)

    def step(_, carry):
        low, high, u = carry
        value, slope = _kl_along(u, change)
        beyond = value > bound
        low, high = jnp.where(beyond, low, u), jnp.where(beyond, u, high)
        newton = u - jnp.log(value / bound) * value / slope
        within = (newton >= low) & (newton <= high)
        return low, high, jnp.where(within, newton, 0.5 * (low + high))

    start = (low, jnp.zeros_like(low), low)
    _, _, u = jax.lax.fori_loop(0, _STEPS, step, start)
    return jnp.exp(u)


@_dual.defjvp
def _dual_jvp(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    """By the implicit function theorem at f(t, change) = bound; the solver is not gone through."""
    (change, bound), (change_dot, bound_dot) = primals, tangents
    t = _dual(change, bound)
    step = t[..., None] * change
    of_change = 0.5 * t[..., None] * step / (1.0 + step) ** 2
    of_t = 0.5 * jnp.sum(change * step / (1.0 + step) ** 2, axis=-1)
    return t, (bound_dot - jnp.sum(of_change * change_dot, axis=-1)) / of_t


PROJECTIONS: dict[str, Projection] = {
    one.name: one for one in (
        Projection("kl", 0.5, -2.0, _kl_of_deviations, _kl_mixing),
        Projection("w2", 1.0, 1.0, _w2_of_deviations, _closed_form(_w2_of_deviations)),
        Projection(
            "frobenius", 1.0, 2.0, _frobenius_of_deviations,
            _closed_form(_frobenius_of_deviations),
        ),
    )
}


def project(
    projection: str, mean: jax.Array, log_std: jax.Array, old_mean: jax.Array,
    old_log_std: jax.Array, mean_bound: jax.Array | float, cov_bound: jax.Array | float,
) -> Parts:
    """The nearest Gaussian in the region around an old one: (mean, log_std), [..., A] each.

    Args:
      projection: "kl", "w2" or "frobenius"; for the others see `Projection.__call__`.

    Raises:
      BadArgument: another name, a bound that is not above 0, or arrays that are not of one shape.
    """
    checks.one_of("projection", projection, PROJECTIONS)
    return PROJECTIONS[projection](mean, log_std, old_mean, old_log_std, mean_bound, cov_bound)
