"""Statistics of a rollout over all shards, in which steps have weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jtrust.networks import RunningStatistics
from jtrust.training.mesh import AXIS
from jtrust.trust_region import mean_over

# No update is held to less than this share of `max_kl`: below it a KL is float32's rounding.
_LEAST_TRUST = 1e-3


def step_weights(whole: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(weights of mean 1 for the steps that are whole and 0 for others, share of whole ones, []).

    Args:
      whole: whether the simulator gave finite numbers, bool [T, N].
    """
    weight = whole.astype(jnp.float32)
    share = mean_over(jnp.mean(weight), AXIS)
    return weight / jnp.maximum(share, 1e-12), share


def weighted_mean(x: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """Mean over all shards, []."""
    return mean_over(jnp.mean(weight * x), AXIS)


def variance(x: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """Variance over all shards, []."""
    return weighted_mean((x - weighted_mean(x, weight)) ** 2, weight)


def standardize(x: jax.Array, weight: jax.Array | float = 1.0) -> jax.Array:
    """`x` with mean 0 and standard deviation 1 over all shards."""
    return (x - weighted_mean(x, weight)) * jax.lax.rsqrt(variance(x, weight) + 1e-12)


def trust(
    advantages: jax.Array, targets: RunningStatistics, floor: jax.Array | float,
    weight: jax.Array | float = 1.0,
) -> jax.Array:
    """The share of the trust region that advantages are worth, [].

    A step's length goes with the advantages' standard deviation once that is below `floor` times
    the root mean square of the value targets, and its KL with the square.
    """
    spread = variance(advantages, weight)
    size = targets.mean**2 + targets.variance
    share = spread / jnp.maximum(floor**2 * size, 1e-30)
    return jnp.clip(share, _LEAST_TRUST, 1.0)


def explained_variance(
    values: jax.Array, targets: jax.Array, weight: jax.Array | float = 1.0
) -> jax.Array:
    """1 - Var(target - value) / Var(target) over all shards; 0 for constant targets."""
    total = variance(targets, weight)
    left = variance(targets - values, weight)
    return jnp.where(total > 0, 1.0 - left / jnp.where(total > 0, total, 1.0), 0.0)


def summarize_episodes(
    totals: Any, last: dict[str, jax.Array]
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """Metrics of the episodes that ended, and what to remember of them.

    Beside return and length the mean sum of each cost, `cost/NAME`.

    Until one has ended both are 0; no episode has a length of 0. (NaN would say so more plainly,
    but `JAX_DEBUG_NANS` takes it for a fault.)
    """
    totals = jax.lax.psum(totals, AXIS)
    count = jnp.maximum(totals.count, 1)
    means = {"return": totals.reward / count, "length": totals.length / count}
    means |= {f"cost/{name}": total / count for name, total in totals.costs.items()}
    means = {k: jnp.where(totals.count > 0, v, last[k]) for k, v in means.items()}
    metrics = {
        "episode/return": means["return"],
        "episode/length": means["length"],
        "episode/count": totals.count,
        "environment/nonfinite": totals.nonfinite,
        "environment/overflow": totals.overflow,
        **{name: x for name, x in means.items() if name.startswith("cost/")},
    }
    return metrics, means
