"""What every algorithm shares: the trust region, and its interface."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax

from jtrust import checks
from jtrust.advantages import GAE
from jtrust.algorithms.batch import Batch
from jtrust.algorithms.defaults import BySize, by_size
from jtrust.algorithms.parts import update_in_parts
from jtrust.algorithms.surrogate import DistributionFn, Limits, Surrogate
from jtrust.algorithms.trees import Params
from jtrust.algorithms.value_fit import ValueFit
from jtrust.environments.base import Environment
from jtrust.hyperparameters import static


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(BySize):
    """From a batch to the next policy; a frozen pytree (`jtrust.hyperparameters`).

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
      parts: into how many parts a rollout is cut, by its environments, for the policy's update,
        `update_in_parts`.
      entropy_cost: weight of the policy's entropy (nats per dimension of the action) in the
        objective, whose advantages have a standard deviation of one. Per dimension, because the
        more motors share in one advantage, the less it says of the noise of each.
    """

    name: ClassVar[str]
    # Names of the numbers of minibatches, each of which must divide a rollout.
    minibatched: ClassVar[tuple[str, ...]] = ()

    max_kl: float = by_size(0.01)
    max_kl_std: float | None = None
    parts: int = static(by_size(1))
    entropy_cost: float = 0.003

    def __post_init__(self):
        checks.real_number("max_kl", self.max_kl, above=0, example=0.01)
        if self.max_kl_std is not None:
            checks.real_number("max_kl_std", self.max_kl_std, above=0, example=0.001)
        checks.whole_number("parts", self.parts, maximum=1024, example=4)
        checks.real_number("entropy_cost", self.entropy_cost, minimum=0, example=0.001)
        for name in self.minibatched:
            if (count := getattr(self, name)) is not None:
                checks.whole_number(name, count, example=8)

    @property
    def cost_names(self) -> tuple[str, ...]:
        """Names of the costs that it keeps below limits, sorted; see `Constrained`."""
        return ()

    def check_environment(self, environment: Environment) -> None:
        """Raises `BadArgument` where an environment's actions or costs are none that it takes."""

    def gae(self) -> GAE:
        """How a trainer estimates advantages for it, where it is told nothing else."""
        return GAE()

    def value_fit(self) -> ValueFit:
        """How a trainer fits values for it, where it is told nothing else."""
        return ValueFit()

    def init(self, params: Params) -> Any:
        """State that the policy update carries from one batch to the next."""
        raise NotImplementedError

    def limits(self, batch: Batch) -> Limits:
        """What an update from a batch may move the policy by."""
        kl_std = None if self.max_kl_std is None else self.max_kl_std * batch.trust
        return Limits(self.max_kl * batch.trust, kl_std)

    def surrogate(
        self, params: Params, distribution_fn: DistributionFn, batch: Batch, axis_name: str | None
    ) -> Surrogate:
        """What measures the moves that it makes from `params`."""
        return Surrogate(params, distribution_fn, batch, self.entropy_cost, axis_name)

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
