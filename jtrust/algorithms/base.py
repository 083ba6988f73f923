"""What every algorithm shares: its batch, its hyperparameters, its interface and its metrics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.trust_region import fisher_operator, in_state_blocks, mean_over

Params = Any
DistributionFn = Callable[[Params, jax.Array], Any]  # (params, normalised observations) -> policy



def static(default: Any) -> Any:
    """A field that shapes the program: part of the pytree's structure and no leaf."""
    return dataclasses.field(default=default, metadata={"static": True})


def hyperparameters(cls: type) -> type:
    """Registers a frozen dataclass as a pytree whose `static` fields are structure.

    Unlike `jax.tree_util.register_dataclass` it rebuilds an object without calling `__init__`:
    users' numbers are checked when users write them, and not when a transformation puts tracers,
    axes or None in their place.
    """
    fields = dataclasses.fields(cls)
    leaves = [f.name for f in fields if not f.metadata.get("static")]
    structure = [f.name for f in fields if f.metadata.get("static")]

    def flatten_with_keys(obj):
        children = [(jax.tree_util.GetAttrKey(n), getattr(obj, n)) for n in leaves]
        return children, tuple(getattr(obj, n) for n in structure)

    def unflatten(values, children):
        obj = object.__new__(cls)
        for name, value in zip(leaves + structure, (*children, *values), strict=True):
            object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One shard's rollout, ready for an update.

    Attributes:
      observation: what the policy reads, normalised, [T, N, O].
      value_observation: what the value network reads, normalised, [T, N, V].
      action: [T, N, A], or [T, N] if discrete.
      advantage: mean 0 and standard deviation 1 over all shards, [T, N].
      value_target: on the value network's output scale, [T, N].
      environment_keys: one random key per environment, [N]; consumed.
      trust: share of `max_kl` that this batch may use, []; see `Algorithm.advantage_floor`. 0
        where rewards have said nothing yet: no update is made.
      weight: of each step, [T, N], with a mean of 1 over all shards: 0 where the simulator broke.
      broken: where it did, 0 or 1, [T, N]; these count in the surrogate objective alone, with the
        advantage that stands there.
      on_cpu: whether CPUs compute the update, which then takes states in blocks where many of
        them would not fit the cache.
    """

    observation: jax.Array
    value_observation: jax.Array
    action: jax.Array
    advantage: jax.Array
    value_target: jax.Array
    environment_keys: jax.Array
    trust: jax.Array | float = 1.0
    weight: jax.Array | float = 1.0
    broken: jax.Array | float = 0.0
    on_cpu: bool = static(False)

    def weights(self) -> jax.Array:
        """`weight` as [T, N]."""
        return jnp.broadcast_to(jnp.asarray(self.weight, jnp.float32), self.advantage.shape)

    def surrogate_weights(self) -> jax.Array:
        """Weights of the steps in the surrogate objective, [T, N]."""
        return self.weights() + self.broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """Hyperparameters that all algorithms have; a frozen pytree.

    Numbers are leaves, so `jax.vmap` runs over them; counts that shape the program are static.

    Attributes:
      max_kl: the trust region: no accepted update moves the policy by a larger mean KL divergence
        (nats, old to new, over the states visited).
      discount: γ.
      gae_lambda: λ of generalized advantage estimation.
      entropy_cost: weight of the policy's entropy (nats per dimension of the action) in the
        objective, whose advantages have a standard deviation of one. Per dimension, because the
        more motors share in one advantage, the less it says of the noise of each.
      advantage_floor: where the advantages' standard deviation is a smaller share than this of the
        returns' root mean square, updates are shortened in proportion. Standardised, the
        advantages of a task that is done are noise as large as any, and full steps along it
        unlearn the task; 0 takes full steps always.
      value_learning_rate: Adam's step size for the value network.
      value_epochs: passes over a batch when fitting values.
      value_minibatches: gradient steps per pass; by default one for every 512 steps of the rollout,
        from 8 to 128 (`minibatches_for`).
    """

    name: ClassVar[str]
    _minibatched: ClassVar[tuple[str, ...]] = ("value_minibatches",)

    max_kl: float = 0.01
    discount: float = 0.995
    gae_lambda: float = 0.95
    entropy_cost: float = 0.0
    advantage_floor: float = 0.003
    value_learning_rate: float = 1e-3
    value_epochs: int = static(2)
    value_minibatches: int | None = static(None)

    def __post_init__(self):
        checks.real_number("max_kl", self.max_kl, above=0, example=0.01)
        checks.real_number("discount", self.discount, minimum=0, maximum=1, example=0.995)
        checks.real_number("gae_lambda", self.gae_lambda, minimum=0, maximum=1, example=0.95)
        checks.real_number("entropy_cost", self.entropy_cost, minimum=0, example=0.001)
        checks.real_number("advantage_floor", self.advantage_floor, minimum=0, example=0.003)
        checks.real_number("value_learning_rate", self.value_learning_rate, above=0, example=1e-3)
        checks.whole_number("value_epochs", self.value_epochs, maximum=10_000, example=2)
        for name, count in self.minibatch_counts().items():
            checks.whole_number(name, count, example=8)

    def minibatch_counts(self) -> dict[str, int]:
        """The minibatch counts that were given, and so must divide a rollout, by their names."""
        counts = {name: getattr(self, name) for name in self._minibatched}
        return {name: count for name, count in counts.items() if count is not None}

    def default_minibatches(self) -> list[str]:
        """Names of the minibatch counts that were not given."""
        return [name for name in self._minibatched if getattr(self, name) is None]

    def init(self, params: Params) -> Any:
        """State that the policy update carries from one batch to the next."""
        raise NotImplementedError

    def update(
        self, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
        axis_name: str | None = None,
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        """The next policy: (params, state, metrics)."""
        raise NotImplementedError


def flatten_time(x: jax.Array) -> jax.Array:
    """[T, N, ...] -> [T N, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


class Surrogate:
    """The policy objective of one batch and the distance from the policy that gathered it.

    L(θ) = E[π_θ(a|s) / π_old(a|s) Â(s, a)] + entropy_cost E[H(π_θ(·|s))] / A, over all shards,
    for actions of A dimensions (1 for a discrete one). Expectations are over the steps that are
    whole, by the batch's weights; the first also takes in the broken ones (`Batch.broken`).
    """

    def __init__(
        self, params: Params, distribution_fn: DistributionFn, batch: Batch,
        entropy_cost: jax.Array | float, axis_name: str | None,
    ):
        self._distribution_fn, self._axis = distribution_fn, axis_name
        dimensions = batch.action.shape[2] if batch.action.ndim == 3 else 1
        self.entropy_cost = entropy_cost / dimensions  # of all dimensions together
        self._batch = batch
        self.weight = flatten_time(batch.weights())
        self.advantage_weight = flatten_time(batch.surrogate_weights())
        self.observation = flatten_time(batch.observation)
        self.action = flatten_time(batch.action)
        self.advantage = flatten_time(batch.advantage)
        self.old_params = params
        self.old = jax.lax.stop_gradient(distribution_fn(params, self.observation))
        self.old_log_prob = self.old.log_prob(self.action)
        self.old_entropy = mean_over(self._mean(self.old.entropy()), axis_name)

    def _mean(self, x: jax.Array) -> jax.Array:
        return jnp.mean(self.weight * x)

    def finite(self) -> jax.Array:
        """Whether the advantages of all shards are, bool []."""
        return jnp.isfinite(mean_over(self._mean(self.advantage), self._axis))

    def at(self, params: Params) -> dict[str, jax.Array]:
        """{"kl", "gain", "entropy"} of `params`, [] each; gain is L(θ) - L(θ_old)."""
        new = self._distribution_fn(params, self.observation)
        ratio = jnp.exp(new.log_prob(self.action) - self.old_log_prob)
        local = {
            "kl": self._mean(self.old.kl_divergence(new)),
            # The gain and not L itself: L at the old policy is the mean advantage, and what is
            # left of a difference of two such sums is rounding.
            "gain": jnp.mean(self.advantage_weight * (ratio - 1.0) * self.advantage),
            "entropy": self._mean(new.entropy()),
        }
        means = mean_over(local, self._axis)
        means["gain"] += self.entropy_cost * (means["entropy"] - self.old_entropy)
        return means

    def gradient(self) -> Params:
        """∇L at the old policy."""

        def objective(params):
            new = self._distribution_fn(params, self.observation)
            ratio = jnp.exp(new.log_prob(self.action) - self.old_log_prob)
            bonus = self.entropy_cost * self._mean(new.entropy())
            return jnp.mean(self.advantage_weight * ratio * self.advantage) + bonus

        return mean_over(jax.grad(objective)(self.old_params), self._axis)

    def fisher(
        self, damping: jax.Array | float = 0.0, stride: int = 1
    ) -> Callable[[Params], Params]:
        """v -> (F + damping I) v at the old policy, F averaged over every `stride`-th time step."""
        observation = flatten_time(self._batch.observation[::stride])
        distribution_fn = self._distribution_fn
        if self._batch.on_cpu:
            distribution_fn = in_state_blocks(distribution_fn)
        return fisher_operator(
            lambda p: distribution_fn(p, observation), self.old_params, damping, self._axis,
            flatten_time(self._batch.weights()[::stride]),
        )

    def unmoved(self) -> dict[str, jax.Array]:
        """What `at` gives for the old policy itself."""
        return {"kl": jnp.float32(0), "gain": jnp.float32(0), "entropy": self.old_entropy}


def policy_metrics(
    measured: dict[str, jax.Array], predicted_kl: jax.Array, accepted: jax.Array, scale: jax.Array,
    limit: jax.Array,
) -> dict[str, jax.Array]:
    """The metrics that every algorithm reports of its policy update, under the same names."""
    return {
        "policy/kl": measured["kl"],
        "policy/kl_predicted": predicted_kl,
        "policy/kl_limit": jnp.asarray(limit, jnp.float32),
        "policy/accepted": accepted.astype(jnp.float32),
        "policy/step_scale": scale,
        "policy/entropy": measured["entropy"],
        "policy/surrogate_gain": measured["gain"],
    }


def tree_add(params: Params, direction: Params, scale: jax.Array | float = 1.0) -> Params:
    """params + scale direction."""
    return jax.tree.map(lambda p, d: p + scale * d, params, direction)


def tree_dot(a: Params, b: Params) -> jax.Array:
    """Inner product of two pytrees, in full float32 on every device."""
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.vdot(x, y, precision="highest") for x, y in leaves)


def finite(tree: Params) -> jax.Array:
    """Whether every number in `tree` is finite, bool []."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree)]))


def within(kl: jax.Array, limit: jax.Array | float) -> jax.Array:
    """kl <= limit, a hair inside, so that it also holds once both are printed in decimal."""
    return kl <= limit * (1.0 - 1e-6)
