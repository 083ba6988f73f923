"""The best step in a trust region under linear constraints, in closed form.

    maximise gᵀx  subject to  c_i + b_iᵀx ≤ 0 for i = 1 ... K  and  ½ xᵀHx ≤ δ

The problem of constrained policy optimisation (Achiam et al., 2017, arXiv:1705.10528, equation 10)
with any number of constraints. Its solution is a combination of H⁻¹g and of H⁻¹b_i, so all that is
asked of them is their Gram matrix. For a given set of constraints that hold with equality the
solution is that of theorem 2 there; which set it is, a few constraints let one find out by trying
all of them, side by side and exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# 2⁸ sets of constraints are tried.
MOST_CONSTRAINTS = 8
# On a scale on which the trust region has a radius of 1: rounding of float32.
_TOLERANCE = 1e-4
_LEAST_PIVOT = 1e-6
# A gradient whose whole effect in the trust region is below this share of the others' is none.
_LEAST_NORM = 1e-9


class ConstrainedStep(NamedTuple):
    """A step x = objective H⁻¹g + Σ constraints_i H⁻¹b_i.

    Attributes:
      objective: the coefficient of H⁻¹g, []; 0 where the step recovers.
      constraints: those of H⁻¹b_i, [K].
      feasible: whether any step in the trust region meets all constraints, bool []. Where none
        does, this one recovers: it goes as far as the trust region lets it towards the nearest
        point that does.
      active: which constraints hold with equality, bool [K].
      multipliers: ν_i, by how much gᵀx would rise were c_i lower by one, [K]; 0 where the step
        recovers.
    """

    objective: jax.Array
    constraints: jax.Array
    feasible: jax.Array
    active: jax.Array
    multipliers: jax.Array


class _Candidates(NamedTuple):
    """For each set of constraints held with equality, coefficients on the scale of 1.

    Attributes:
      sets: which constraints, 0 or 1, [S, K].
      along: of the objective's direction, [S].
      shares: of it, what each constraint takes away, [S, K].
      offsets: the point nearest to zero at which they hold, [S, K].
      radius: the squared distance of that point, [S].
    """

    sets: jax.Array
    along: jax.Array
    shares: jax.Array
    offsets: jax.Array
    radius: jax.Array


def constrained_step(
    gram: jax.Array, excess: jax.Array, max_kl: jax.Array | float
) -> ConstrainedStep:
    """Solves the problem above, or recovers where it has no solution.

    On a scale where g, b_i and the trust region have length 1 let R be the cosines between the
    b_i, ρ those between g and b_i, and c the excesses. With the set A held with equality,

        x = t (g - Σ_A α_i b_i) - Σ_A β_i b_i,   α = R_AA⁻¹ ρ_A,   β = R_AA⁻¹ c_A,
        t = sqrt((1 - c_Aᵀβ) / (1 - ρ_Aᵀα)),

    theorem 2's solution with λ = 1 / t and ν = α + β / t. Of all sets the best is taken whose x
    meets the other constraints too. With one constraint these are the paper's cases: it does not
    bind, it binds, or there is no solution and x = -sqrt(2δ / bᵀH⁻¹b) H⁻¹b (equation 14). With
    several, recovery heads for the point that is nearest to zero of those that meet all of them,
    wherever it is; where even that does not exist, down the sum of squared excesses.

    A constraint that no step changes (b_i = 0) is left out: nothing can be done about it.

    Args:
      gram: [1 + K, 1 + K], inner products uᵀH⁻¹v of (g, b_1, ..., b_K).
      excess: c, [K]; negative where a constraint is met.
      max_kl: δ.

    Returns:
      A `ConstrainedStep`; all zeros where g is zero and all constraints are met.

    Raises:
      ValueError: shapes that do not fit, or more than `MOST_CONSTRAINTS` constraints.
    """
    count = excess.shape[0]
    if gram.shape != (count + 1, count + 1):
        raise ValueError(f"gram {gram.shape} must be [1 + K, 1 + K] for excess {excess.shape}")
    if not 1 <= count <= MOST_CONSTRAINTS:
        raise ValueError(f"{count} constraints; there may be 1 to {MOST_CONSTRAINTS}")
    norms = jnp.sqrt(jnp.maximum(jnp.diagonal(gram), 0.0))
    bears = norms > _LEAST_NORM * jnp.maximum(jnp.max(norms), 1e-30)
    scale = jnp.where(bears, norms, 1.0)
    cosines = jnp.clip(gram / (scale[:, None] * scale), -1.0, 1.0)
    cosines = jnp.where(bears[:, None] & bears, cosines, 0.0)
    rho, among = cosines[0, 1:], cosines[1:, 1:]
    radius = jnp.sqrt(2.0 * jnp.asarray(max_kl, jnp.float32))
    # Below -1 a constraint cannot bind; what nothing changes is put there.
    level = jnp.where(
        bears[1:], jnp.clip(excess / (jnp.maximum(radius, 1e-20) * scale[1:]), -2.0, 1e6), -2.0
    )
    found = _candidates(rho, among, level)
    best, feasible = _best(found, rho, among, level)
    nearest = _towards_feasible(found, among, level)
    along = jnp.where(feasible & bears[0], found.along[best], 0.0)
    taken = jnp.where(feasible, along * found.shares[best] + found.offsets[best], nearest)
    multipliers = jnp.where(along > 0, taken / jnp.where(along > 0, along, 1.0), 0.0)
    return ConstrainedStep(
        radius * along / scale[0], -radius * taken / scale[1:], feasible,
        jnp.where(feasible, found.sets[best] > 0, level > 0),
        jnp.maximum(multipliers, 0.0) * scale[0] / scale[1:],
    )


def _candidates(rho: jax.Array, among: jax.Array, level: jax.Array) -> _Candidates:
    """The solution for each set of constraints held with equality."""
    count = rho.shape[0]
    numbers = np.arange(2**count)
    sets = jnp.asarray((numbers[:, None] >> np.arange(count)) & 1, jnp.float32)
    matrices = sets[:, :, None] * sets[:, None, :] * among
    matrices += jnp.eye(count) * (1.0 - sets)[:, None, :]
    right = jnp.stack([sets * rho, sets * level], axis=-1)
    solved = solve_positive(matrices, right)
    shares, offsets = solved[..., 0], solved[..., 1]
    left = 1.0 - shares @ rho
    nearest = offsets @ level
    along = jnp.sqrt(jnp.maximum(1.0 - nearest, 0.0) / jnp.maximum(left, _LEAST_PIVOT))
    # Of an objective that lies in the span of the constraints nothing is left along them.
    return _Candidates(sets, jnp.where(left > _LEAST_PIVOT, along, 0.0), shares, offsets, nearest)


def _best(
    found: _Candidates, rho: jax.Array, among: jax.Array, level: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """(the number of the best candidate that meets all constraints, whether there is any)."""
    taken = found.along[:, None] * found.shares + found.offsets
    reached = level + found.along[:, None] * rho - taken @ among
    length = found.along**2 - 2.0 * found.along * (taken @ rho) + jnp.sum(
        taken * (taken @ among), axis=1
    )
    meets = jnp.all(reached <= _TOLERANCE, axis=1) & (length <= 1.0 + _TOLERANCE)
    gain = jnp.where(meets, found.along - taken @ rho, -jnp.inf)
    return jnp.argmax(gain), jnp.any(meets)


def _towards_feasible(found: _Candidates, among: jax.Array, level: jax.Array) -> jax.Array:
    """Coefficients of a step of length 1 towards the nearest point that meets all constraints."""
    meets = jnp.all(level - found.offsets @ among <= _TOLERANCE, axis=1)
    nearest = jnp.argmin(jnp.where(meets, found.radius, jnp.inf))
    steepest = jnp.minimum(jnp.maximum(level, 0.0), 1e3)
    step = jnp.where(jnp.any(meets), found.offsets[nearest], steepest)
    squared = step @ (among @ step)
    return jnp.where(squared > 0, step * jax.lax.rsqrt(jnp.maximum(squared, 1e-20)), 0.0)


def solve_positive(matrices: jax.Array, right: jax.Array) -> jax.Array:
    """Solves small symmetric positive definite systems by elimination, all side by side.

    A handful of fused operations, where a library's solver is a call for each system, for which
    CPU devices wait on threads that they themselves hold.

    Args:
      matrices: [..., K, K]; where one is singular, the result is finite and of no use.
      right: [..., K, M].

    Returns:
      [..., K, M].
    """
    for i in range(matrices.shape[-1]):
        pivot = jnp.maximum(matrices[..., i, i], _LEAST_PIVOT)[..., None]
        row, value = matrices[..., i, :] / pivot, right[..., i, :] / pivot
        factors = matrices[..., :, i, None]
        # The pivot's own row becomes itself over the pivot.
        own = jnp.arange(matrices.shape[-1])[:, None] == i
        matrices = jnp.where(own, row[..., None, :], matrices - factors * row[..., None, :])
        right = jnp.where(own, value[..., None, :], right - factors * value[..., None, :])
    return right
