"""What a policy is to gain from a batch, how far it has moved, and how far it may."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jtrust.algorithms.batch import Batch, flatten_time
from jtrust.algorithms.trees import Params, tree_dot
from jtrust.networks.sequence import states
from jtrust.trust_region import fisher_operator, in_state_blocks, max_over, mean_over

# (params, normalised observations [B, O], or a sequence of [T, N, O]) -> policy in [B], or [T N]
DistributionFn = Callable[[Params, Any], Any]

# Where importance weights are cut off.
_LARGEST_IMPORTANCE = 2.0


class Surrogate:
    """The policy objective of one batch and the distance from the policy before the update.

    L(θ) = E[w π_θ(a|s) / π_old(a|s) Â(s, a)] + entropy_cost E[H(π_θ(·|s))] / A, over all shards,
    for actions of A dimensions (1 for a discrete one). Expectations are over the steps that are
    whole, by the batch's weights; the first also takes in the broken ones (`Batch.broken`). w is 1
    where π_old chose the actions, and else the ratio of its density to that of the policy which
    did, cut off at 2 so that a few steps cannot speak for all (Espeholt et al., 2018,
    arXiv:1802.01561).
    """

    def __init__(
        self, params: Params, distribution_fn: DistributionFn, batch: Batch,
        entropy_cost: jax.Array | float, axis_name: str | None,
    ):
        self.distribution_fn, self._axis = distribution_fn, axis_name
        dimensions = batch.action.shape[2] if batch.action.ndim == 3 else 1
        self.entropy_cost = entropy_cost / dimensions  # of all dimensions together
        self._batch = batch
        self.weight = flatten_time(batch.weights())
        self.advantage_weight = flatten_time(batch.surrogate_weights())
        self.observation = states(batch.observation)
        self.action = flatten_time(batch.action)
        self.advantage = flatten_time(batch.advantage)
        self.old_params = params
        self.old = jax.lax.stop_gradient(distribution_fn(params, self.observation))
        self.old_log_prob = self.old.log_prob(self.action)
        if batch.behaviour_log_prob is not None:
            ratio = jnp.exp(self.old_log_prob - flatten_time(batch.behaviour_log_prob))
            self.advantage_weight *= jnp.minimum(ratio, _LARGEST_IMPORTANCE)
        self.old_entropy = mean_over(self._mean(self.old.entropy()), axis_name)

    def _mean(self, x: jax.Array) -> jax.Array:
        return jnp.mean(self.weight * x)

    def finite(self) -> jax.Array:
        """Whether the advantages of all shards are, bool []."""
        return jnp.isfinite(mean_over(self._mean(self.advantage), self._axis))

    def at(self, params: Params) -> dict[str, jax.Array]:
        """{"kl_mean", "kl_std", "kl", "gain", "entropy", "kl_max"} of `params`, [] each.

        kl is the sum of the two before it; gain is L(θ) - L(θ_old); kl_max, and whatever else
        `by_state` names, is the largest over the states of whole steps.
        """
        new = self.distribution_fn(params, self.observation)
        ratio = jnp.exp(new.log_prob(self.action) - self.old_log_prob)
        of_mean, of_deviation = self.old.kl_parts(new)
        local = {
            "kl_mean": self._mean(of_mean),
            "kl_std": self._mean(of_deviation),
            # The gain and not L itself: L at the old policy is the mean advantage, and what is
            # left of a difference of two such sums is rounding.
            "gain": jnp.mean(self.advantage_weight * (ratio - 1.0) * self.advantage),
            "entropy": self._mean(new.entropy()),
        }
        means = mean_over(local, self._axis)
        means["kl"] = means["kl_mean"] + means["kl_std"]
        means["gain"] += self.entropy_cost * (means["entropy"] - self.old_entropy)
        # Measured where the means are: in the same pass over the states, and not in one more.
        largest = {
            name: jnp.max(jnp.where(self.weight > 0, x, 0.0))
            for name, x in self.by_state(new, of_mean, of_deviation).items()
        }
        return means | max_over(largest, self._axis)

    def by_state(
        self, new: Any, of_mean: jax.Array, of_deviation: jax.Array
    ) -> dict[str, jax.Array]:
        """What `at` reports the largest of, [B] each; given both parts of the KL to `new`."""
        return {"kl_max": of_mean + of_deviation}

    def gradient(self) -> Params:
        """∇L at the old policy."""

        def objective(params):
            new = self.distribution_fn(params, self.observation)
            ratio = jnp.exp(new.log_prob(self.action) - self.old_log_prob)
            bonus = self.entropy_cost * self._mean(new.entropy())
            return jnp.mean(self.advantage_weight * ratio * self.advantage) + bonus

        return mean_over(jax.grad(objective)(self.old_params), self._axis)

    def fisher(
        self, damping: jax.Array | float = 0.0, stride: int = 1
    ) -> Callable[[Params], Params]:
        """v -> (F + damping I) v at the old policy, F averaged over `Batch.some_states(stride)`."""
        observation, weight = self._batch.some_states(stride)
        distribution_fn = self.distribution_fn
        if self._batch.fits_in_blocks:
            distribution_fn = in_state_blocks(distribution_fn)
        return fisher_operator(
            lambda p: distribution_fn(p, observation), self.old_params, damping, self._axis,
            weight,
        )

    def predicted_kl(self, move: Params, scale: jax.Array) -> jax.Array:
        """What the quadratic model makes of `scale` times a move: 0.5 scale² moveᵀ F move, [].

        Eight of the time steps say it well enough; the network linearised on all of them would
        take the memory that minibatches avoid.
        """
        with jax.named_scope("fisher_vector_products"):
            fisher = self.fisher(stride=max(self._batch.advantage.shape[0] // 8, 1))
            return 0.5 * scale**2 * tree_dot(move, fisher(move))

    def unmoved(self) -> dict[str, jax.Array]:
        """What `at` gives for the old policy itself."""
        still = dict.fromkeys(("kl_mean", "kl_std", "kl", "gain", "kl_max"), jnp.float32(0))
        return still | {"entropy": self.old_entropy}


def within(kl: jax.Array, limit: jax.Array | float) -> jax.Array:
    """kl <= limit, a hair inside, so that it also holds once both are printed in decimal."""
    return kl <= limit * (1.0 - 1e-6)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Limits:
    """What an update may move the policy by: mean KL divergences in nats, [] each.

    Attributes:
      kl: in all.
      kl_std: by the deviations alone; None for no limit of their own.
    """

    kl: jax.Array | float
    kl_std: jax.Array | float | None

    def hold(self, measured: dict[str, jax.Array]) -> jax.Array:
        """Whether what `Surrogate.at` measured is inside, bool []."""
        inside = within(measured["kl"], self.kl)
        return inside if self.kl_std is None else inside & within(measured["kl_std"], self.kl_std)

    def exceeded(self, measured: dict[str, jax.Array]) -> jax.Array:
        """The largest ratio of a divergence to its limit, []."""
        over = measured["kl"] / self.kl
        return over if self.kl_std is None else jnp.maximum(over, measured["kl_std"] / self.kl_std)

    def metrics(self, measured: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """What is reported of them beside `policy/kl_limit`."""
        if self.kl_std is None:
            return {}
        return {"policy/kl_std_limit": cast(jax.Array, self.kl_std)}


def deviation_mask(distribution_fn: DistributionFn, params: Params) -> Params:
    """1 for parameters that are the policy's deviation in all states, else 0; like `params`.

    A network says which they are (`jtrust.networks.Network.deviation`); a plain function has none.
    """
    none = lambda params: jax.tree.map(lambda _: False, params)  # noqa: E731
    return jax.tree.map(float, getattr(distribution_fn, "deviation", none)(params))


def memory_mask(distribution_fn: DistributionFn, params: Params) -> Params | None:
    """Which parameters make or read what a policy remembers, bool; None where none do.

    Like `params`, each leaf of a shape that broadcasts to theirs (`PolicyNetwork.of_memory`).
    """
    of_memory = getattr(distribution_fn, "of_memory", None)
    mask = None if of_memory is None else of_memory(params)
    return mask if any(np.any(leaf) for leaf in jax.tree.leaves(mask)) else None


def policy_metrics(
    measured: dict[str, jax.Array], predicted_kl: jax.Array, accepted: jax.Array, scale: jax.Array,
    limits: Limits,
) -> dict[str, jax.Array]:
    """The metrics that every algorithm reports of its policy update, under the same names."""
    return {
        "policy/kl": measured["kl"],
        "policy/kl_mean": measured["kl_mean"],
        "policy/kl_std": measured["kl_std"],
        "policy/kl_max": measured["kl_max"],
        "policy/kl_predicted": predicted_kl,
        "policy/kl_limit": jnp.asarray(limits.kl, jnp.float32),
        "policy/accepted": accepted.astype(jnp.float32),
        "policy/step_scale": scale,
        "policy/entropy": measured["entropy"],
        "policy/surrogate_gain": measured["gain"],
    } | limits.metrics(measured)
