"""How costs change with the policy, by the rollout of the one before."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jtrust.algorithms.batch import Batch, CostBatch
from jtrust.algorithms.surrogate import DistributionFn, Surrogate
from jtrust.algorithms.trees import Params
from jtrust.trust_region import mean_over


class CostSurrogate(Surrogate):
    """`Surrogate`, and that of each cost beside it.

    The performance difference lemma (Kakade and Langford, 2002) for sums over episodes without
    discount: a policy π' costs E_π'[Σ_t A_C(s_t, a_t)] more per episode than π, which to first
    order, over the steps of a rollout of π, is

        J_C(π') - J_C(π) ≈ E[episode length] E_s,a~π[π'(a|s) / π(a|s) A_C(s, a)].

    It is equation 10 of Achiam et al. (2017, arXiv:1705.10528) with the mean length of an episode
    in the place of 1 / (1 - γ). All costs here are per step: rates.
    """

    def __init__(
        self, params: Params, distribution_fn: DistributionFn, batch: Batch, costs: CostBatch,
        entropy_cost: jax.Array | float, axis_name: str | None,
    ):
        super().__init__(params, distribution_fn, batch, entropy_cost, axis_name)
        self._axis_name = axis_name
        count = costs.advantage.shape[0]
        self.cost_advantage = costs.advantage.reshape(count, -1)

    def rates_at(self, params: Params) -> jax.Array:
        """By how much each cost of a step would be higher than under the old policy, [K]."""
        return mean_over(self._rates(params), self._axis_name)

    def _rates(self, params: Params) -> jax.Array:
        new = self.distribution_fn(params, self.observation)
        ratio = jnp.exp(new.log_prob(self.action) - self.old_log_prob)
        return jnp.mean(self.weight * (ratio - 1.0) * self.cost_advantage, axis=1)

    def cost_gradients(self) -> jax.Array:
        """∇ of `rates_at` at the old policy, [K, P], of the parameters as one vector."""
        start, unravel = ravel_pytree(self.old_params)
        found = jax.jacrev(lambda flat: self._rates(unravel(flat)))(start)
        return mean_over(found, self._axis_name)
