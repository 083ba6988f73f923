"""What every algorithm shares: its hyperparameters and its interface."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax

from jtrust import checks
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import SizeDependent, by_size, is_large, plain
from jtrust.algorithms.hyperparameters import static
from jtrust.algorithms.parts import update_in_parts
from jtrust.algorithms.surrogate import DistributionFn, Limits
from jtrust.algorithms.trees import Params

VALUE_SOLVERS = ("adam", "gauss-newton")


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
        the rest leaves.
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
    max_kl_std: float | None = None
    parts: int = static(by_size(1))
    discount: float = 0.995
    gae_lambda: float = 0.95
    entropy_cost: float = 0.003
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
        if self.max_kl_std is not None:
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
        large = {}
        if is_large(num_envs, unroll_length):
            large = self.for_large(num_envs, unroll_length)
        return dataclasses.replace(self, **{
            f.name: large.get(f.name, plain(value)) for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), SizeDependent)
            or (value is None and f.name in large)
        })

    def for_large(self, num_envs: int, unroll_length: int) -> dict[str, Any]:
        """Defaults for rollouts of more than `SMALL_ROLLOUT` steps, by name."""
        return {
            "value_rounds": 4, "value_solver": "gauss-newton", "value_lambda": 1.0,
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
