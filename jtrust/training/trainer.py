"""A training run, described: what it is made of, and the two programs that it is."""

from __future__ import annotations

import collections
import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jtrust import checks
from jtrust.advantages import GAE
from jtrust.algorithms import Algorithm, ValueFit
from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.environments.batch import not_begun, variations
from jtrust.networks import (
    NetworkConfig,
    PolicyNetwork,
    RunningStatistics,
    ValueNetwork,
    make_policy_network,
    make_value_network,
)
from jtrust.policy import Policy
from jtrust.training.agent import Agent
from jtrust.training.collection import Collection
from jtrust.training.costs import (
    ConstrainedCollection,
    Constraints,
    check_memory,
    make_constraints,
)
from jtrust.training.estimation import Estimation
from jtrust.training.iteration import Iteration
from jtrust.training.mesh import (
    REPLICATED,
    STATE_SPEC,
    compiler_options,
    environment_index,
    is_cpu,
    local,
    per_shard,
)
from jtrust.training.policy_evaluation import PolicyEvaluation
from jtrust.training.preparation import Preparation
from jtrust.training.signal import RewardsSeen
from jtrust.training.state import TrainState

# Iterations dispatched before an earlier one is waited for, on several CPU devices.
_MOST_UNDER_WAY = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """A training run, described; `init` and `iterate` are pure.

    Its parts are properties, so that a part can be another one in a class of your own.

    Attributes:
      environment: what is trained in.
      algorithm: how the policy is updated.
      gae: how advantages are estimated; not what `algorithm` says of it, once this is made.
      value_fit: how values are fitted; the same.
      num_envs: N, over all devices.
      unroll_length: T, steps of each environment per iteration.
      network: shape of the networks.
      mesh: the devices.
      custom_policy: a module of the user's own as policy network.
      custom_value: the same as value network.
    """

    environment: Environment
    algorithm: Algorithm
    gae: GAE
    value_fit: ValueFit
    num_envs: int
    unroll_length: int
    network: NetworkConfig
    mesh: Mesh
    custom_policy: nn.Module | None = None
    custom_value: nn.Module | None = None

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps that one iteration takes, N T."""
        return self.num_envs * self.unroll_length

    # What it is made of.

    @functools.cached_property
    def agent(self) -> Agent:
        """What acts and judges."""
        return Agent(self.environment, self.policy_network, self.value_network)

    @functools.cached_property
    def policy_network(self) -> PolicyNetwork:
        """Normalised observations -> distributions over actions."""
        environment = self.environment
        return make_policy_network(
            self.network, _size(environment, environment.policy_key), environment.action,
            self.custom_policy, is_cpu(self.mesh),
        )

    @functools.cached_property
    def value_network(self) -> ValueNetwork:
        """Normalised observations -> values on the targets' scale."""
        environment = self.environment
        return make_value_network(
            self.network, _size(environment, environment.value_key), self.custom_value,
            is_cpu(self.mesh),
        )

    @functools.cached_property
    def collection(self) -> Collection:
        """Lets the policy act."""
        kind = ConstrainedCollection if self.algorithm.cost_names else Collection
        return kind(self.agent, self.num_envs, self.unroll_length, self.mesh)

    @functools.cached_property
    def estimation(self) -> Estimation:
        """Judges what it did."""
        return Estimation(self.agent, self.gae, self.value_fit.td_lambda)

    @functools.cached_property
    def preparation(self) -> Preparation:
        """Normalises it, and makes a batch of it."""
        return Preparation(
            self.agent, self.gae.advantage_floor, self.steps_per_iteration, is_cpu(self.mesh)
        )

    @functools.cached_property
    def evaluation(self) -> PolicyEvaluation:
        """Has the values follow the policy, where rollouts are large; fits them."""
        return PolicyEvaluation(self.value_fit, self.estimation, self.preparation)

    @functools.cached_property
    def constraints(self) -> Constraints | None:
        """Judges costs, where the algorithm keeps some below limits."""
        if not self.algorithm.cost_names:
            return None
        check_memory(self.policy_network)
        return make_constraints(self.algorithm, self.evaluation, self.agent)

    @functools.cached_property
    def iteration(self) -> Iteration:
        """All of them, one behind the other."""
        return Iteration(
            self.collection, self.estimation, self.preparation, self.evaluation, self.algorithm,
            self.constraints,
        )

    # What it does.

    def policy(self, params: Any, statistics: RunningStatistics, observation: Any) -> Any:
        """The distribution over actions at raw observations [..., O], or a dictionary of them."""
        return self.agent.policy(params, statistics, observation)

    def values(self, state: TrainState, observation: Any) -> jax.Array:
        """Values in units of reward at raw observations [..., O], or a dictionary of them."""
        return self.agent.values(state, observation)

    def make_policy(self, params: Any, statistics: RunningStatistics) -> Policy:
        """A policy that acts, of its parameters and what observations are normalised by."""
        key = self.environment.policy_key
        params, statistics = jax.tree.map(local, (params, statistics))
        return Policy(self.policy_network, self.environment.action, params, statistics.at(key), key)

    def policy_of(self, state: TrainState) -> Policy:
        """The policy of a training state, ready to act."""
        return self.make_policy(state.policy, state.observation_statistics)

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first iteration, placed on the mesh; `key` is consumed."""
        checks.random_key("key", key)
        if isinstance(key, jax.core.Tracer):
            return self._init.__wrapped__(key)
        return self._init(key)

    def iterate(self, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        """One iteration: (next state, metrics, [] each)."""
        if isinstance(state.iteration, jax.core.Tracer):
            return self._iterate.__wrapped__(state)
        state, metrics = self._iterate(state)
        self._wait_for_earlier(metrics["policy/kl"])
        return state, metrics

    # Compiled where they are called as they are; inside a `jit`, `scan` or `vmap` just functions,
    # since options are for the outermost program alone.

    @functools.cached_property
    def _init(self):
        return jax.jit(
            per_shard(self.init_shard, self.mesh, REPLICATED, STATE_SPEC),
            # A program that runs once need not be fast, but soon there.
            compiler_options=(
                {"xla_backend_optimization_level": 0} if is_cpu(self.mesh) else None
            ),
        )

    @functools.cached_property
    def _iterate(self):
        return jax.jit(
            per_shard(self.iteration, self.mesh, (STATE_SPEC,), (STATE_SPEC, REPLICATED)),
            compiler_options=compiler_options(self.mesh),
        )

    def init_shard(self, key: jax.Array) -> TrainState:
        """What `init` does on one shard of the environments."""
        run_key, policy_key, value_key, variation_key = jax.random.split(key, 4)
        index = environment_index(self.collection.envs_per_device)
        environment = self.environment
        variation = variations(
            environment, jax.vmap(jax.random.fold_in, (None, 0))(variation_key, index)
        )
        # The first iteration begins the episodes: a reset is a third of what there is to compile,
        # and is compiled there for the episodes that follow.
        episodes = dataclasses.replace(
            not_begun(environment, len(index), variation),
            memory=self.agent.initial_memory((len(index),)),
        )
        sample = jax.tree.map(
            lambda x: jnp.zeros(x.shape, jnp.float32), environment.used(environment.observation)
        )
        policy = self.policy_network.init(policy_key, select(sample, environment.policy_key))
        value = self.value_network.init(value_key, select(sample, environment.value_key))
        return TrainState(
            policy=policy,
            value=value,
            policy_optimizer=self.algorithm.init(policy),
            value_optimizer=self.value_fit.init(value),
            observation_statistics=RunningStatistics.zero(sample),
            target_statistics=RunningStatistics.zero(jnp.float32(0.0)),
            episodes=episodes,
            last_episodes=dict.fromkeys(
                ("return", "length", *(f"cost/{name}" for name in environment.costs)),
                jnp.float32(0.0),
            ),
            rewards_seen=RewardsSeen.none(),
            key=run_key,
            iteration=jnp.int32(0),
            costs=() if self.constraints is None else self.constraints.init(
                jax.random.fold_in(value_key, 1), select(sample, environment.value_key)
            ),
        )

    def _wait_for_earlier(self, result: jax.Array) -> None:
        """Holds a loop that never reads its metrics to a few iterations ahead of CPU devices.

        XLA's collectives between CPU devices wait on the threads that would have to run the other
        device's share, and with some 30 iterations under way none is left: a deadlock, which XLA
        ends with the process (jax 0.10.2, two devices on two cores).
        """
        if not is_cpu(self.mesh) or self.mesh.size == 1 or isinstance(result, jax.core.Tracer):
            return
        self._under_way.append(result)
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popleft().block_until_ready()

    @functools.cached_property
    def _under_way(self) -> collections.deque:
        return collections.deque()


def _size(environment: Environment, key: str | None) -> int:
    """How many numbers an observation has."""
    return select(environment.observation, key).shape[-1]
