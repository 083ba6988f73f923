"""What every algorithm shares: its batch, its hyperparameters, its interface and its metrics."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.algorithms.defaults import SizeDependent, by_size, is_large, plain
from jtrust.networks import DEVIATION
from jtrust.trust_region import (
    backtracking_line_search,
    fisher_operator,
    in_state_blocks,
    mean_over,
)

Params = Any
DistributionFn = Callable[[Params, jax.Array], Any]  # (params, normalised observations) -> policy


VALUE_SOLVERS = ("adam", "gauss-newton")


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
      behaviour_log_prob: log density of the actions under the policy that chose them, [T, N]; None
        where that is the policy to be updated.
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
    behaviour_log_prob: jax.Array | None = None
    on_cpu: bool = static(False)

    def weights(self) -> jax.Array:
        """`weight` as [T, N]."""
        return jnp.broadcast_to(jnp.asarray(self.weight, jnp.float32), self.advantage.shape)

    def size(self, axis_name: str | None) -> tuple[int, int]:
        """(environments on all shards together, steps of each)."""
        shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
        return self.advantage.shape[1] * shards, self.advantage.shape[0]

    def surrogate_weights(self) -> jax.Array:
        """Weights of the steps in the surrogate objective, [T, N]."""
        return self.weights() + self.broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """Hyperparameters that all algorithms have; a frozen pytree.

    Numbers are leaves, so `jax.vmap` runs over them; counts that shape the program are static.
    Defaults are those for small rollouts. Where one has more than `SMALL_ROLLOUT` steps,
    `make_trainer` takes those of `for_large` for what was not given.

    Attributes:
      max_kl: the trust region: no accepted update moves the policy by a larger mean KL divergence
        (nats, old to new, over the states visited).
      max_kl_std: what the deviation may take of it: no accepted update moves the deviations alone
        by a larger mean KL divergence. For a Gaussian the two parts, that of the means and that of
        the deviations, add up exactly; of a categorical policy all is the first. None: as much as
        the rest leaves, and so for infinity.
      discount: γ.
      gae_lambda: λ of generalized advantage estimation.
      entropy_cost: weight of the policy's entropy (nats per dimension of the action) in the
        objective, whose advantages have a standard deviation of one. Per dimension, because the
        more motors share in one advantage, the less it says of the noise of each.
      advantage_floor: where the advantages' standard deviation is a smaller share than this of the
        returns' root mean square, updates are shortened in proportion. Standardised, the
        advantages of a task that is done are noise as large as any, and full steps along it
        unlearn the task; 0 takes full steps always.
      parts: into how many parts a rollout is cut, by its environments, for the policy's update,
        `update_in_parts`.
      value_lambda: λ of the value targets; None for that of the advantages.
      value_rounds: how often values are fitted to a rollout, to targets computed anew from those
        of the round before; all rounds but the last come before the policy's update, whose
        advantages are by the values that they end with.
      value_solver: "adam", minibatches of gradient steps; or "gauss-newton", one step of second
        order a round, which an accelerator does in a small part of the time.
      value_learning_rate: Adam's step size for the value network.
      value_epochs: Adam's passes over a batch in each round.
      value_minibatches: Adam's steps per pass; by default one for every 512 steps of the rollout,
        from 8 to 128 (`minibatches_for`).
      value_cg_iterations: conjugate-gradient iterations for a step of Gauss-Newton.
      value_damping: multiple of the identity added to the Gauss-Newton matrix; values and
        observations are on a scale of one.
    """

    name: ClassVar[str]
    _minibatched: ClassVar[tuple[str, ...]] = ("value_minibatches",)

    max_kl: float = by_size(0.01)
    max_kl_std: float | None = by_size(math.inf)
    parts: int = static(by_size(1))
    discount: float = 0.995
    gae_lambda: float = 0.95
    entropy_cost: float = by_size(0.0)
    advantage_floor: float = 0.003
    value_lambda: float | None = None
    value_rounds: int = static(by_size(1))
    value_solver: str = static(by_size("adam"))
    value_learning_rate: float = 1e-3
    value_epochs: int = static(2)
    value_minibatches: int | None = static(None)
    value_cg_iterations: int = static(6)
    value_damping: float = 1e-3

    def __post_init__(self):
        checks.real_number("max_kl", self.max_kl, above=0, example=0.01)
        if self.max_kl_std not in (None, math.inf):
            checks.real_number("max_kl_std", self.max_kl_std, above=0, example=0.001)
        checks.whole_number("parts", self.parts, maximum=1024, example=4)
        if self.value_lambda is not None:
            checks.real_number(
                "value_lambda", self.value_lambda, minimum=0, maximum=1, example=0.99
            )
        checks.whole_number("value_rounds", self.value_rounds, maximum=1000, example=4)
        checks.one_of("value_solver", self.value_solver, VALUE_SOLVERS)
        checks.whole_number(
            "value_cg_iterations", self.value_cg_iterations, maximum=10_000, example=6
        )
        checks.real_number("value_damping", self.value_damping, minimum=0, example=1e-3)
        checks.real_number("discount", self.discount, minimum=0, maximum=1, example=0.995)
        checks.real_number("gae_lambda", self.gae_lambda, minimum=0, maximum=1, example=0.95)
        checks.real_number("entropy_cost", self.entropy_cost, minimum=0, example=0.001)
        checks.real_number("advantage_floor", self.advantage_floor, minimum=0, example=0.003)
        checks.real_number("value_learning_rate", self.value_learning_rate, above=0, example=1e-3)
        checks.whole_number("value_epochs", self.value_epochs, maximum=10_000, example=2)
        for name, count in self.all_minibatches().items():
            if count is not None:
                checks.whole_number(name, count, example=8)

    def settled(self, num_envs: int, unroll_length: int) -> Algorithm:
        """The same for such rollouts: where one is large, `for_large` in place of defaults.

        What was given stays, whatever the size. docs/learning.md has what stands behind both.
        """
        large = {"max_kl_std": None}
        if is_large(num_envs, unroll_length):
            large |= self.for_large(num_envs, unroll_length)
        return dataclasses.replace(self, **{
            f.name: large.get(f.name, plain(value)) for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), SizeDependent)
            or (value is None and f.name in large and f.metadata.get("static"))
        })

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        """Defaults for rollouts of more than `SMALL_ROLLOUT` steps, by name."""
        return {
            "entropy_cost": 0.003, "value_rounds": 4, "value_solver": "gauss-newton",
            "value_lambda": 1.0,
        }

    def all_minibatches(self) -> dict[str, int | None]:
        """The minibatch counts, each of which must divide a rollout, by their names."""
        return {name: getattr(self, name) for name in self._minibatched}

    def init(self, params: Params) -> Any:
        """State that the policy update carries from one batch to the next."""
        raise NotImplementedError

    def limits(self, batch: Batch) -> Limits:
        """What an update from a batch may move the policy by."""
        kl_std = None if self.max_kl_std is None else self.max_kl_std * batch.trust
        return Limits(self.max_kl * batch.trust, kl_std)

    def limits_of_parts(self, limits: Limits) -> Limits:
        """What the step of each part may move the policy by, where the whole has `limits`.

        All parts move the deviation the same way, so their moves add up and their divergences grow
        with the square of their number.
        """
        if limits.kl_std is None:
            return limits
        return dataclasses.replace(limits, kl_std=limits.kl_std / self.parts**2)

    def update(
        self, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
        axis_name: str | None = None,
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        """The next policy: (params, state, metrics)."""
        settled = self.settled(*batch.size(axis_name))
        limits = settled.limits(batch)
        if settled.parts == 1:
            return settled.step(state, params, distribution_fn, batch, limits, axis_name)
        return update_in_parts(
            settled, state, params, distribution_fn, batch, limits, axis_name
        )

    def step(
        self, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
        limits: Limits, axis_name: str | None = None,
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        """What `update` does with a rollout, or with each part of one; for a `settled` algorithm.

        Where the batch has a `behaviour_log_prob`, `params` are not those that gathered it.
        """
        raise NotImplementedError


def flatten_time(x: jax.Array) -> jax.Array:
    """[T, N, ...] -> [T N, ...]."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


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
        """{"kl_mean", "kl_std", "kl", "gain", "entropy"} of `params`, [] each.

        kl is the sum of the two before it; gain is L(θ) - L(θ_old).
        """
        new = self._distribution_fn(params, self.observation)
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
        still = dict.fromkeys(("kl_mean", "kl_std", "kl", "gain"), jnp.float32(0))
        return still | {"entropy": self.old_entropy}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Limits:
    """What an update may move the policy by: mean KL divergences in nats, [] each.

    Attributes:
      kl: in all.
      kl_std: by the deviations alone; None for no limit of their own.
    """

    kl: jax.Array
    kl_std: jax.Array | None

    def hold(self, measured: dict[str, jax.Array]) -> jax.Array:
        """Whether what `Surrogate.at` measured is inside, bool []."""
        inside = within(measured["kl"], self.kl)
        return inside if self.kl_std is None else inside & within(measured["kl_std"], self.kl_std)

    def exceeded(self, measured: dict[str, jax.Array]) -> jax.Array:
        """The largest ratio of a divergence to its limit, []."""
        over = measured["kl"] / self.kl
        return over if self.kl_std is None else jnp.maximum(over, measured["kl_std"] / self.kl_std)


def deviation_mask(params: Params) -> Params:
    """1 for parameters that are the policy's deviation in all states, else 0; like `params`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: float(getattr(path[-1], "key", None) == DEVIATION), params
    )


def policy_metrics(
    measured: dict[str, jax.Array], predicted_kl: jax.Array, accepted: jax.Array, scale: jax.Array,
    limits: Limits,
) -> dict[str, jax.Array]:
    """The metrics that every algorithm reports of its policy update, under the same names."""
    return {
        "policy/kl": measured["kl"],
        "policy/kl_mean": measured["kl_mean"],
        "policy/kl_std": measured["kl_std"],
        "policy/kl_predicted": predicted_kl,
        "policy/kl_limit": jnp.asarray(limits.kl, jnp.float32),
        "policy/accepted": accepted.astype(jnp.float32),
        "policy/step_scale": scale,
        "policy/entropy": measured["entropy"],
        "policy/surrogate_gain": measured["gain"],
    } | ({} if limits.kl_std is None else {"policy/kl_std_limit": limits.kl_std})


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


# Of the metrics of parts: what is summed, and what is that of the last part; others are averaged.
_SUMMED = ("policy/skipped",)
_LAST = ("policy/learning_rate", "policy/kl_coefficient")


def update_in_parts(
    algorithm: Algorithm, state: Any, params: Params, distribution_fn: DistributionFn, batch: Batch,
    limits: Limits, axis_name: str | None,
) -> tuple[Params, Any, dict[str, jax.Array]]:
    """Several steps of an algorithm from one rollout, each on a part that no other step has seen.

    A large rollout says more than one step can use: how far a step may go is bounded by how far
    its direction stays right, not by noise. So the rollout is cut by its environments, and each
    part makes a step from where the one before it ended. That policy, near which the step is kept,
    is not the one that gathered the part, which stands in the importance weights alone: the
    proximal and the behaviour policy apart (Hilton, Cobbe and Schulman, 2022, arXiv:2110.00641).
    At the end the whole move is measured over the whole rollout, from the policy that gathered it,
    and drawn back along the straight line to within `limits` where it is outside.

    Args:
      algorithm: `settled`; its `step` is taken `parts` times.
      state, params, distribution_fn, batch, axis_name: as for `Algorithm.update`.
      limits: of the whole move.
    """
    surrogate = Surrogate(params, distribution_fn, batch, algorithm.entropy_cost, axis_name)
    shape, parts = batch.advantage.shape, algorithm.parts
    by_step = {
        "observation": batch.observation, "action": batch.action, "advantage": batch.advantage,
        "weight": batch.weights(), "broken": jnp.broadcast_to(batch.broken, shape),
        "behaviour_log_prob": surrogate.old_log_prob.reshape(shape),
    }

    def cut(x: jax.Array, axis: int) -> jax.Array:
        """[.., N, ..] -> [parts, .., N / parts, ..], every `parts`-th environment."""
        shape = (*x.shape[:axis], x.shape[axis] // parts, parts, *x.shape[axis + 1:])
        return jnp.moveaxis(x.reshape(shape), axis + 1, 0)

    def step(carry, part):
        params, state = carry
        fields, keys = part
        params, state, metrics = algorithm.step(
            state, params, distribution_fn,
            dataclasses.replace(batch, environment_keys=keys, **fields),
            algorithm.limits_of_parts(limits), axis_name,
        )
        return (params, state), metrics

    (new_params, state), metrics = jax.lax.scan(
        step, (params, state),
        (jax.tree.map(lambda x: cut(x, 1), by_step), cut(batch.environment_keys, 0)),
    )
    with jax.named_scope("line_search"):
        move = jax.tree.map(lambda n, p: n - p, new_params, params)

        def accept(scale):
            candidate = tree_add(params, move, scale)
            measured = surrogate.at(candidate)
            return limits.hold(measured) & finite(candidate), measured

        search = backtracking_line_search(accept, surrogate.unmoved(), factor=0.8, max_trials=30)
    accepted = search.accepted & (limits.kl > 0)
    scale = jnp.where(accepted, search.scale, 0.0)
    measured = jax.tree.map(
        lambda m, u: jnp.where(accepted, m, u), search.aux, surrogate.unmoved()
    )
    new_params = jax.tree.map(lambda p, m: jnp.where(accepted, p + scale * m, p), params, move)
    with jax.named_scope("fisher_vector_products"):
        fisher = surrogate.fisher(stride=max(shape[0] // 8, 1))
        predicted = 0.5 * scale**2 * tree_dot(move, fisher(move))
    moved = accepted & jnp.any(metrics["policy/accepted"] > 0)
    of_whole = policy_metrics(measured, predicted, moved, scale, limits)
    of_parts = {
        name: jnp.sum(x) if name in _SUMMED else x[-1] if name in _LAST else jnp.mean(x)
        for name, x in metrics.items() if name not in of_whole
    }
    return new_params, state, {
        **of_whole, **of_parts, "policy/kl_parts": jnp.mean(metrics["policy/kl"]),
    }
