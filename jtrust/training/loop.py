"""The training iteration: gather, normalise, estimate advantages, update policy and values."""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jtrust import checks
from jtrust.advantages import gae
from jtrust.algorithms import Algorithm, Batch, fit_values, init_value_optimizer
from jtrust.algorithms.bellman import solve_output_layer
from jtrust.environments import Environment
from jtrust.environments.base import select
from jtrust.environments.batch import (
    Episodes,
    begin,
    not_begun,
    start_group,
    start_states,
    variations,
    whole_starts,
)
from jtrust.networks import (
    INPUT_LAYER,
    OUTPUT_LAYER,
    Network,
    NetworkConfig,
    get_layer,
    make_policy_network,
    make_value_network,
    with_layer,
)
from jtrust.normalization import Moments, fold_input, fold_output, target_scale
from jtrust.own_networks import OwnPolicy, OwnValue
from jtrust.training.mesh import (
    AXIS,
    REPLICATED,
    STATE_SPEC,
    all_shards,
    environment_index,
    per_shard,
)
from jtrust.training.rollout import (
    EpisodeTotals,
    Restarts,
    Trajectory,
    cache_block,
    in_blocks,
    random_rollout,
    rollout,
)
from jtrust.training.signal import RewardsSeen
from jtrust.training.state import TrainState
from jtrust.training.statistics import (
    explained_variance,
    standardize,
    step_weights,
    summarize_episodes,
    trust,
)
from jtrust.trust_region import mean_over

# What a random key is for.
ACTIONS, STARTS, MINIBATCHES = PURPOSES = range(3)
# Value targets are scaled by about this many batches' statistics: returns grow while learning.
_TARGET_MEMORY = 10
# What a step is worth at which the simulator broke, in standard deviations of the advantage. With
# no weight at all breaking it still pays: the surrogate cannot see what became of the probability
# that leaves the whole steps, so it moves away from every state whose value is estimated too high
# and into the break, from where nothing is learned. Deviations below the average it never pays;
# where breaks have nothing to do with actions the term is zero on average.
BROKEN_ADVANTAGE = -2.0
# Iterations dispatched before an earlier one is waited for, on several CPU devices.
_MOST_UNDER_WAY = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Trainer:
    """A training run, described; `init` and `iterate` are pure.

    Attributes:
      environment: what is trained in.
      algorithm: how the policy is updated.
      num_envs: N, over all devices.
      unroll_length: T, steps of each environment per iteration.
      network: shape of the networks.
      mesh: the devices.
      own_policy: the policy network, where it is the user's own.
      own_value: the value network, where it is the user's own.
    """

    environment: Environment
    algorithm: Algorithm
    num_envs: int
    unroll_length: int
    network: NetworkConfig
    mesh: Mesh
    own_policy: OwnPolicy | None = None
    own_value: OwnValue | None = None

    @property
    def steps_per_iteration(self) -> int:
        """Environment steps that one iteration takes, N T."""
        return self.num_envs * self.unroll_length

    @property
    def _on_cpu(self) -> bool:
        return self.mesh.devices.flat[0].platform == "cpu"

    @property
    def _envs_per_device(self) -> int:
        return self.num_envs // self.mesh.size

    @functools.cached_property
    def policy_network(self) -> Network:
        return make_policy_network(
            self.network, self.environment.action, self.own_policy, self._on_cpu
        )

    @functools.cached_property
    def value_network(self) -> Network:
        return make_value_network(self.network, self.own_value, self._on_cpu)

    def policy(self, params: Any, moments: Moments, observation: Any) -> Any:
        """The distribution over actions at raw observations [..., O], or a dictionary of them."""
        key = self.environment.policy_key
        inputs = moments.at(key).normalize(select(observation, key))
        return self.policy_network.apply(params, inputs)

    def values(self, state: TrainState, observation: Any) -> jax.Array:
        """Values in units of reward at raw observations [..., O], or a dictionary of them."""
        mean, std = target_scale(state.target_moments)
        key = self.environment.value_key
        inputs = state.observation_moments.at(key).normalize(select(observation, key))
        return mean + std * self.value_network.apply(state.value, inputs)

    def init(self, key: jax.Array) -> TrainState:
        """The state before the first iteration, placed on the mesh; `key` is consumed."""
        checks.random_key("key", key)
        if isinstance(key, jax.core.Tracer):
            return self._init.__wrapped__(key)  # options are for the outermost program alone
        return self._init(key)

    def iterate(self, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        """One iteration: (next state, metrics, [] each)."""
        state, metrics = self._iterate(state)
        self._wait_for_earlier(metrics["policy/kl"])
        return state, metrics

    def _wait_for_earlier(self, result: jax.Array) -> None:
        """Holds a loop that never reads its metrics to a few iterations ahead of CPU devices.

        XLA's collectives between CPU devices wait on the threads that would have to run the other
        device's share, and with some 30 iterations under way none is left: a deadlock, which XLA
        ends with the process (jax 0.10.2, two devices on two cores).
        """
        if not self._on_cpu or self.mesh.size == 1 or isinstance(result, jax.core.Tracer):
            return
        self._under_way.append(result)
        if len(self._under_way) > _MOST_UNDER_WAY:
            self._under_way.popleft().block_until_ready()

    @functools.cached_property
    def _under_way(self) -> collections.deque:
        return collections.deque()

    # Compiled where they are called as they are; inside a `jit`, `scan` or `vmap` just a function.

    @functools.cached_property
    def _init(self):
        return jax.jit(
            per_shard(self._init_shard, self.mesh, REPLICATED, STATE_SPEC),
            # A program that runs once need not be fast, but soon there.
            compiler_options={"xla_backend_optimization_level": 0} if self._on_cpu else None,
        )

    @functools.cached_property
    def _iterate(self):
        return jax.jit(per_shard(
            self._iterate_shard, self.mesh, (STATE_SPEC,), (STATE_SPEC, REPLICATED)
        ))

    def _init_shard(self, key: jax.Array) -> TrainState:
        run_key, policy_key, value_key, variation_key = jax.random.split(key, 4)
        index = environment_index(self._envs_per_device)
        environment = self.environment
        variation = variations(
            environment, jax.vmap(jax.random.fold_in, (None, 0))(variation_key, index)
        )
        # The first iteration begins the episodes: a reset is a third of what there is to compile,
        # and is compiled there for the episodes that follow.
        episodes = not_begun(environment, len(index), variation)
        sample = jax.tree.map(
            lambda x: jnp.zeros(x.shape, jnp.float32), environment.used(environment.observation)
        )
        policy = self.policy_network.init(policy_key, select(sample, environment.policy_key))
        value = self.value_network.init(value_key, select(sample, environment.value_key))
        return TrainState(
            policy=policy,
            value=value,
            policy_optimizer=self.algorithm.init(policy),
            value_optimizer=init_value_optimizer(self.algorithm, value),
            observation_moments=Moments.zero(sample),
            target_moments=Moments.zero(jnp.float32(0.0)),
            episodes=episodes,
            last_episodes={"return": jnp.float32(0.0), "length": jnp.float32(0.0)},
            rewards_seen=RewardsSeen.none(),
            key=run_key,
            iteration=jnp.int32(0),
        )

    def _iterate_shard(self, state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        keys = self.environment_keys(state)
        state, trajectory, totals = self.gather(state, keys)
        values, advantages, targets = self.estimate(state, trajectory)
        state, batch, observed = self.normalize(state, trajectory, advantages, targets, keys)
        state, batch = self.evaluate_again(state, trajectory, batch)
        state, update_metrics = self.update(state, batch)

        episode_metrics, last_episodes = summarize_episodes(totals, state.last_episodes)
        state = dataclasses.replace(
            state, last_episodes=last_episodes, iteration=state.iteration + 1
        )
        metrics = {
            **episode_metrics, **update_metrics, **observed,
            "value/explained_variance": explained_variance(values, targets, batch.weight),
        }
        return state, metrics

    # The parts of an iteration, each written for one shard of the mesh.

    def environment_keys(self, state: TrainState) -> jax.Array:
        """Random keys for each of this shard's environments, for this iteration, [N, purposes]."""
        key = jax.random.fold_in(state.key, state.iteration)
        index = environment_index(self._envs_per_device)
        # All at once: each call of the generator is a loop of its own to compile.
        number = index[:, None] * len(PURPOSES) + jnp.asarray(PURPOSES)
        return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (None, 0))(key, number)

    def gather(
        self, state: TrainState, keys: jax.Array
    ) -> tuple[TrainState, Trajectory, EpisodeTotals]:
        """Runs the policy, each episode that ends going on from a fresh start state."""
        starts = self.fresh_starts(state, keys)
        episodes = self.begun(state, starts)
        run = functools.partial(
            rollout, self.environment,
            functools.partial(self.policy, state.policy, state.observation_moments),
            functools.partial(self.values, state), unroll_length=self.unroll_length,
            restarts=self._restarts(starts),
        )
        with jax.named_scope("rollout"):
            episodes, trajectory, totals = in_blocks(
                run, self.block_size(starts), episodes, starts, keys[:, ACTIONS]
            )
        return dataclasses.replace(state, episodes=episodes), trajectory, totals

    def block_size(self, states: Any) -> int:
        """How many of a shard's environments are rolled out together, given their states."""
        count = self._envs_per_device
        if not self._on_cpu:
            return count
        leaves = jax.tree.leaves(states)
        size = sum(x.size * x.dtype.itemsize for x in leaves) // leaves[0].shape[0]
        return cache_block(count, size, start_group(self.num_envs))

    def fresh_starts(self, state: TrainState, keys: jax.Array) -> Any:
        """Start states for the episodes that begin in this iteration, [M, ...] each leaf.

        Those of this shard's environments; or those of all shards, where groups that share start
        states reach over them: where `start_group` does not divide a device's environments.
        """
        group = start_group(self.num_envs)
        with jax.named_scope("fresh_starts"):
            starts = start_states(self.environment, keys[:, STARTS], state.episodes.variation)
            if self._envs_per_device % group:
                starts = all_shards(starts)
            return whole_starts(self.environment, starts, group)

    def _first_start(self, starts: Any) -> jax.Array | int:
        """Where this shard's environments begin among the start states, []."""
        count = self._envs_per_device
        everywhere = jax.tree.leaves(starts)[0].shape[0] != count
        return environment_index(count)[0] if everywhere else 0

    def _restarts(self, starts: Any) -> Restarts:
        return Restarts(start_group(self.num_envs), self._first_start(starts), self._on_cpu)

    def begun(self, state: TrainState, starts: Any) -> Episodes:
        """The episodes under way; a run's first iteration begins them from `starts`.

        Time limits would end all first episodes at once, and all that follow: each batch would
        hold the same stretch of every episode, and the policy would forget the others. So the
        first ones are cut at times spread evenly over an episode's length.
        """
        episodes, count = state.episodes, self._envs_per_device
        index = environment_index(count).astype(jnp.float32)
        spread = index * (self.environment.episode_length / self.num_envs)
        begins = self._first_start(starts)

        def own(x: jax.Array) -> jax.Array:
            return x if x.shape[0] == count else jax.lax.dynamic_slice_in_dim(x, begins, count)

        first = jax.lax.cond(
            state.iteration == 0,
            lambda: begin(jax.tree.map(own, starts), head_start=spread.astype(jnp.int32)),
            lambda: dataclasses.replace(episodes, variation=()),
        )
        return dataclasses.replace(first, variation=episodes.variation)

    def replay(self, state: TrainState, starts: Any, action: jax.Array) -> tuple[Any, jax.Array]:
        """The environments of `gather` under given actions [T, N, ...] and nothing else.

        Returns:
          (episodes after the last step, rewards [T, N]).
        """
        restarts = self._restarts(starts)

        def run(episodes, starts, action):
            # Blocks cut along the first axis, so time comes second on the way in.
            return *random_rollout(
                self.environment, episodes, starts, jnp.moveaxis(action, 1, 0), restarts
            ), None

        return in_blocks(
            run, self.block_size(starts), self.begun(state, starts), starts,
            jnp.moveaxis(action, 1, 0),
        )[:2]

    def act_at_random(self, state: TrainState, keys: jax.Array) -> tuple[Any, jax.Array]:
        """The environments of `gather` under random actions and nothing else, for comparison."""
        action = jax.vmap(
            lambda key: self.environment.action.sample(key, (self.unroll_length,)), out_axes=1
        )(keys[:, ACTIONS])
        return self.replay(state, self.fresh_starts(state, keys), action)

    def estimate(
        self, state: TrainState, trajectory: Trajectory
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Values, advantages and value targets in units of reward, [T, N] each.

        A step at which the simulator broke says nothing of the policy: the sums of the steps
        before it end with the value of the observation from which it was taken, its own
        advantage is 0, and it has no weight in the batch.
        """
        with jax.named_scope("advantages"):
            values = self.values(state, trajectory.observation)
            final_values = self.values(state, self.environment.used(state.episodes.observation))
            next_values = true_next_values(trajectory, values, final_values)

            def sums(decay: jax.Array | float) -> jax.Array:
                advantages, _ = gae(
                    trajectory.reward, values, next_values, trajectory.termination,
                    ends_of_sums(trajectory), self.algorithm.discount, decay,
                )
                return jnp.where(trajectory.whole, advantages, 0.0)

            advantages = towards_targets = sums(self.algorithm.gae_lambda)
            if self.algorithm.value_lambda is not None:
                towards_targets = sums(self.algorithm.value_lambda)
        return values, advantages, towards_targets + values

    def normalize(
        self, state: TrainState, trajectory: Trajectory, advantages: jax.Array,
        targets: jax.Array, keys: jax.Array,
    ) -> tuple[TrainState, Batch, dict[str, jax.Array]]:
        """Takes the rollout into the normalisers, without moving the policy or the values.

        Returns:
          (state, the normalised batch, metrics of the normalisers, [] each).
        """
        with jax.named_scope("normalization"):
            weight, share = step_weights(trajectory.whole)
            state, observed = self._update_normalizers(
                state, trajectory.observation, targets, weight, share
            )
            seen = state.rewards_seen.update(
                trajectory.reward, trajectory.termination, trajectory.whole, AXIS
            )
            worth = trust(
                advantages, state.target_moments, self.algorithm.advantage_floor, weight
            )
            observation = state.observation_moments.normalize(trajectory.observation)
            batch = Batch(
                observation=select(observation, self.environment.policy_key),
                value_observation=select(observation, self.environment.value_key),
                action=trajectory.action,
                advantage=self.standard_advantages(trajectory, advantages, weight),
                value_target=self.scaled_targets(state, targets),
                environment_keys=keys[:, MINIBATCHES],
                trust=jnp.where(seen.tell_apart() & (share > 0), worth, 0.0),
                weight=weight,
                broken=(~trajectory.whole).astype(jnp.float32),
                on_cpu=self._on_cpu,
            )
        return dataclasses.replace(state, rewards_seen=seen), batch, observed

    def evaluate_again(
        self, state: TrainState, trajectory: Trajectory, batch: Batch
    ) -> tuple[TrainState, Batch]:
        """All rounds of policy evaluation but the last, which follows the policy's update.

        Targets bootstrap from values, so one fit carries what rewards say only about 1 / (1 - γλ)
        steps, or one unroll, further back: it is one application of the operator T^λ whose fixed
        point is the policy's value (Tsitsiklis and Van Roy, 1997), and leaves as much as
        γ (1 - λ) / (1 - γλ) of the error, 0.9 with the defaults. Sixty-four environments apply it
        once in 4096 steps and keep up with their policy. Thousands would apply it once in hundreds
        of thousands, judge each policy by the values of one long gone, and need many times the
        steps to learn as much. So large rollouts are fitted several times, to targets computed
        anew in between, and advantages are those of the values that come out. Each fit forms the
        layers below the last, for which the fixed point is solved at once.
        """
        rounds = self.algorithm.value_rounds
        if rounds == 1:
            return state, batch

        def fit(carry, number):
            value, optimizer, target, _ = carry
            current = dataclasses.replace(state, value=value, value_optimizer=optimizer)
            keys = jax.vmap(jax.random.fold_in, (0, None))(batch.environment_keys, number)
            value, optimizer, _ = self.fit_values(current, dataclasses.replace(
                batch, value_target=target, environment_keys=keys
            ))
            with jax.named_scope("value_fit"):
                current = self._at_fixed_point(
                    dataclasses.replace(current, value=value), trajectory, batch
                )
            _, advantages, targets = self.estimate(current, trajectory)
            return (current.value, optimizer, self.scaled_targets(state, targets), advantages), None

        (value, optimizer, target, advantages), _ = jax.lax.scan(
            fit, (state.value, state.value_optimizer, batch.value_target, batch.advantage),
            jnp.arange(1, rounds),
        )
        worth = trust(
            advantages, state.target_moments, self.algorithm.advantage_floor, batch.weight
        )
        state = dataclasses.replace(state, value=value, value_optimizer=optimizer)
        return state, dataclasses.replace(
            batch, value_target=target,
            advantage=self.standard_advantages(trajectory, advantages, batch.weight),
            trust=jnp.where(batch.trust > 0, worth, 0.0),
        )

    def _at_fixed_point(
        self, state: TrainState, trajectory: Trajectory, batch: Batch
    ) -> TrainState:
        """The last layer of the values solved for, where they are a linear function of it."""
        values, _, targets = self.estimate(state, trajectory)
        left = self.scaled_targets(state, targets) - self.scaled_targets(state, values)
        key = self.environment.value_key
        final = select(self.environment.used(state.episodes.observation), key)
        value = solve_output_layer(
            self.value_network.apply, state.value, batch.value_observation,
            state.observation_moments.at(key).normalize(final), left,
            trajectory.termination, ends_of_sums(trajectory), trajectory.truncation, batch.weight,
            self.algorithm.discount, self._value_lambda, AXIS,
        )
        return dataclasses.replace(state, value=value)

    @property
    def _value_lambda(self) -> jax.Array | float:
        given = self.algorithm.value_lambda
        return self.algorithm.gae_lambda if given is None else given

    @staticmethod
    def scaled_targets(state: TrainState, targets: jax.Array) -> jax.Array:
        """Value targets in units of reward on the value network's output scale."""
        mean, std = target_scale(state.target_moments)
        return (targets - mean) / std

    @staticmethod
    def standard_advantages(
        trajectory: Trajectory, advantages: jax.Array, weight: jax.Array
    ) -> jax.Array:
        """Advantages as the surrogate takes them, [T, N]."""
        return jnp.where(
            trajectory.whole, standardize(advantages, weight), BROKEN_ADVANTAGE
        )

    def update(
        self, state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Moves the policy inside its trust region, and fits the values."""
        with jax.named_scope("policy_update"):
            policy, policy_optimizer, policy_metrics = self.algorithm.update(
                state.policy_optimizer, state.policy, self.policy_network.apply, batch, AXIS
            )
        value, value_optimizer, value_metrics = self.fit_values(state, batch)
        state = dataclasses.replace(
            state, policy=policy, policy_optimizer=policy_optimizer, value=value,
            value_optimizer=value_optimizer,
        )
        return state, {**policy_metrics, **value_metrics}

    def fit_values(
        self, state: TrainState, batch: Batch
    ) -> tuple[Any, Any, dict[str, jax.Array]]:
        """The value network brought nearer to its targets: (parameters, optimiser, metrics)."""
        with jax.named_scope("value_fit"):
            return fit_values(
                self.algorithm, state.value, state.value_optimizer, self.value_network.apply,
                batch, AXIS,
            )

    def _update_normalizers(
        self, state: TrainState, observation: Any, targets: jax.Array,
        weight: jax.Array | None = None, share: jax.Array | float = 1.0,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes a batch into both normalisers; also metrics: how far the policy moved by it."""
        old, old_targets = state.observation_moments, state.target_moments
        new = old.update(observation, AXIS, 2, weight, share)
        taken = old_targets.update(targets, AXIS, 2, weight, share)
        new_targets = taken.forget(float(_TARGET_MEMORY * self.steps_per_iteration))

        # The first batch is the exception: statistics of nothing are no scale to hold on to, and
        # the untrained policy says nearly the same of every observation on either scale.
        first = old.count == 0
        def folded(params: Any, key: str | None) -> Any:
            layer = get_layer(params, INPUT_LAYER)
            layer = _unless(first, fold_input, layer, old.at(key), new.at(key))
            return with_layer(params, INPUT_LAYER, layer)

        policy = folded(state.policy, self.environment.policy_key)
        value = folded(state.value, self.environment.value_key)
        value = with_layer(
            value, OUTPUT_LAYER,
            _unless(
                first, fold_output, get_layer(value, OUTPUT_LAYER), old_targets, new_targets
            ),
        )
        # Eight of the time steps are enough to see a drift.
        some = jax.tree.map(lambda x: x[:: max(x.shape[0] // 8, 1)], observation)
        before = self.policy(state.policy, old, some)
        after = self.policy(policy, new, some)
        metrics = {
            "observation/drift_kl": mean_over(jnp.mean(before.kl_divergence(after)), AXIS),
            "observation/skipped": (new.count == old.count).astype(jnp.float32),
            "value/targets_skipped": (taken.count == old_targets.count).astype(jnp.float32),
        }
        if self.network.precision != "highest":
            metrics["policy/precision_kl"] = self._precision_kl(policy, new, some, after)
        state = dataclasses.replace(
            state, policy=policy, value=value, observation_moments=new, target_moments=new_targets
        )
        return state, metrics

    def _precision_kl(
        self, params: Any, moments: Moments, observation: Any, policy: Any
    ) -> jax.Array:
        """The KL between the policy as it is computed and as full float32 has it, []."""
        exact = dataclasses.replace(self.policy_network, precision="highest")
        key = self.environment.policy_key
        exact_policy = exact.apply(params, moments.at(key).normalize(select(observation, key)))
        return mean_over(jnp.mean(policy.kl_divergence(exact_policy)), AXIS)


def ends_of_sums(trajectory: Trajectory) -> jax.Array:
    """Where sums of rewards stop: episodes that end, and steps before the simulator broke."""
    whole = jnp.broadcast_to(trajectory.whole, trajectory.termination.shape)
    breaks_next = jnp.concatenate([~whole[1:], jnp.zeros_like(whole[:1])])
    return trajectory.termination | trajectory.truncation | breaks_next


def true_next_values(
    trajectory: Trajectory, values: jax.Array, final_values: jax.Array
) -> jax.Array:
    """Values of the true next observations, [T, N].

    Args:
      trajectory: T steps of N environments.
      values: of its observations, [T, N].
      final_values: of the observations after the last step, [N].
    """
    following = jnp.concatenate([values[1:], final_values[None]])
    return jnp.where(trajectory.truncation, trajectory.truncation_value, following)


def _unless(condition: jax.Array, fold: Callable, layer: Any, old: Moments, new: Moments) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), layer, fold(layer, old, new))
