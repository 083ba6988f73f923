"""Many copies of an environment side by side, with episodes that end and start afresh."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jtrust.environments.base import Environment, own_truncation
from jtrust.environments.costs import step_costs
from jtrust.environments.warp_physics import overflow

# A start state is handed to another environment of the same group at each step, so that one
# environment that fails often does not fail from one state alone.
RESET_GROUP = 8


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Episodes:
    """Episodes under way.

    Attributes:
      state: the environments' own states, [N, ...] each leaf.
      length: steps so far, int32 [N].
      reward_sum: sum of rewards so far, [N].
      head_start: by how many steps the time limit comes early, int32 [N]; such an episode, one of
        a run's first, is not counted among those that ended.
      variation: what is each environment's own through all its episodes (`Environment.vary`),
        [N, ...]; () where all are alike.
      memory: what those who act in them remember of each since it began, [N, ...]; () for nothing.
      cost_sums: sums of costs so far, [N] each, by name.
    """

    state: Any
    length: jax.Array
    reward_sum: jax.Array
    head_start: jax.Array
    variation: Any = ()
    memory: Any = ()
    cost_sums: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

    @property
    def observation(self) -> Any:
        """[N, O], or a dictionary of such."""
        return self.state.obs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepOutcome:
    """What one step of N environments gave, before any of them was restarted.

    Attributes:
      reward: [N].
      termination: a state after which nothing follows: no bootstrap, bool [N].
      truncation: a time limit, or a state that had to be thrown away: bootstrap, bool [N].
      last_observation: the true next observation, [N, O], or a dictionary of those that are
        used; where that is not finite, the one before it.
      nonfinite: environments that gave NaN or infinity, bool [N].
      overflow: environments whose physics lost contacts or constraints for want of room, bool [N].
      episode_return: sum of rewards where an episode ended that counts, 0 elsewhere, [N].
      episode_length: its steps, 0 elsewhere, [N].
      episode_end: episodes that ended and count: not those cut by a non-finite value, nor those
        with a head start, bool [N].
      costs: of the step, [N] each, by name.
      episode_costs: sums of costs where an episode ended that counts, 0 elsewhere, [N] each.
    """

    reward: jax.Array
    termination: jax.Array
    truncation: jax.Array
    last_observation: Any
    nonfinite: jax.Array
    overflow: jax.Array
    episode_return: jax.Array
    episode_length: jax.Array
    episode_end: jax.Array
    costs: dict[str, jax.Array] = dataclasses.field(default_factory=dict)
    episode_costs: dict[str, jax.Array] = dataclasses.field(default_factory=dict)


def strong(x: jax.Array, like: Any = None) -> jax.Array:
    """`x` with its own type (or that of `like`) and no weak type, so that a carry keeps its type.

    Typed random keys pass as they are.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return x
    return jax.lax.convert_element_type(x, x.dtype if like is None else like.dtype)


def variations(environment: Environment, keys: jax.Array) -> Any:
    """What is each environment's own for good: [N] keys -> [N, ...], or () for nothing."""
    if environment.vary is None:
        return ()
    return jax.tree.map(strong, environment.vary(keys))


def reset_group(num_envs: int) -> int:
    """How many environments hand start states to each other: always the same ones of a run's N,
    on however many devices they are."""
    return math.gcd(num_envs, RESET_GROUP)


def reset_states(environment: Environment, keys: jax.Array, variation: Any = ()) -> Any:
    """Start states, one per key: [N] keys -> [N, ...], each under its environment's variation."""
    return jax.tree.map(strong, jax.vmap(environment.reset)(keys, *_own(environment, variation)))


def whole_resets(environment: Environment, states: Any, group: int | None = None) -> Any:
    """Start states with those mended whose observation is not finite.

    Each is replaced by the first finite one of its group. Where there is none its observation is
    made zero: the step from there is not whole, and counts for nothing, but what the networks are
    given stays finite.

    Args:
      states: [N, ...] each leaf.
      group: how many stand together; divides N; by default all.
    """
    structure: Any
    leaves, structure = jax.tree.flatten(states)
    finite = _finite(environment.used(states.obs)).reshape(-1, group or len(states.reward))
    index = jnp.arange(finite.size).reshape(finite.shape)
    first = index[:, :1] + jnp.argmax(finite, axis=1, keepdims=True)
    source = jnp.where(finite, index, first).reshape(-1)
    number = structure.unflatten(range(len(leaves)))
    observed = set(jax.tree.leaves(environment.used(number.obs)))
    return structure.unflatten([
        _finite_rows(x[source]) if i in observed else x[source] for i, x in enumerate(leaves)
    ])


def _finite_rows(x: jax.Array) -> jax.Array:
    """`x`, [N, O], with zeros in the rows that are not finite."""
    return jnp.where(jnp.all(jnp.isfinite(x), axis=-1, keepdims=True), x, jnp.zeros_like(x))


def begin(
    states: Any, variation: Any = (), head_start: jax.Array | None = None,
    costs: Iterable[str] = (),
) -> Episodes:
    """Episodes at their first state, without a head start unless one is given, int32 [N].

    `costs` are the names of those of the environment that are to be summed up.
    """
    count = jax.tree.leaves(states.reward)[0].shape[0]
    zero = jnp.zeros((count,), jnp.int32)
    return Episodes(
        states, zero, jnp.zeros((count,), jnp.float32),
        zero if head_start is None else head_start, variation,
        cost_sums={name: jnp.zeros((count,), jnp.float32) for name in costs},
    )


def not_begun(environment: Environment, count: int, variation: Any = ()) -> Episodes:
    """What stands in the place of `count` episodes before they begin: zeros."""
    first = jax.tree.map(lambda x: x[0], variation)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(environment.reset, key, *_own(environment, first))
    # `full`, for it also makes random keys, where a state holds some.
    state = jax.tree.map(lambda x: jax.lax.full((count, *x.shape), 0, x.dtype), state)
    return begin(state, variation, costs=environment.costs)


def step(environment: Environment, episodes: Episodes, action: jax.Array) -> tuple[
    Episodes, StepOutcome
]:
    """One step of every environment; nothing is restarted (see `restart`).

    Args:
      action: [N, A] or, if discrete, [N], on the policy's scale.
    """
    new = jax.vmap(environment.step)(
        episodes.state, jax.vmap(environment.action.to_environment)(action),
        *_own(environment, episodes.variation),
    )
    new = jax.tree.map(strong, new, episodes.state)
    length = episodes.length + 1
    before, after = environment.used(episodes.observation), environment.used(new.obs)
    costs = step_costs(environment.costs, new)
    finite = jnp.isfinite(new.reward) & _finite(after)
    for cost in costs.values():
        finite &= jnp.isfinite(cost)
    own_limit = own_truncation(new)
    done = new.done.astype(bool)
    termination = done & finite & ~own_limit
    over = length + episodes.head_start >= environment.episode_length
    truncation = ~termination & (done | own_limit | over)
    truncation = truncation | ~finite
    reward = jnp.where(finite, new.reward, 0.0).astype(jnp.float32)
    reward_sum = episodes.reward_sum + reward
    costs = {name: jnp.where(finite, cost, 0.0) for name, cost in costs.items()}
    cost_sums = {name: episodes.cost_sums[name] + cost for name, cost in costs.items()}
    end = (termination | truncation) & finite & (episodes.head_start == 0)
    outcome = StepOutcome(
        reward=reward,
        termination=termination,
        truncation=truncation,
        last_observation=jax.tree.map(lambda a, b: _where(finite, a, b), after, before),
        nonfinite=~finite,
        overflow=overflow(new),
        episode_return=jnp.where(end, reward_sum, 0.0),
        episode_length=jnp.where(end, length, 0),
        episode_end=end,
        costs=costs,
        episode_costs={name: jnp.where(end, x, 0.0) for name, x in cost_sums.items()},
    )
    moved = dataclasses.replace(
        episodes, state=new, length=length, reward_sum=reward_sum, cost_sums=cost_sums
    )
    return moved, outcome


def _own(environment: Environment, variation: Any) -> tuple:
    """The last argument of `reset` and `step`, where they take one."""
    return () if environment.vary is None else (variation,)


def _finite(observation: Any) -> jax.Array:
    """Which of N observations are finite throughout, bool [N]."""
    each = [jnp.all(jnp.isfinite(x), axis=-1) for x in jax.tree.leaves(observation)]
    return functools.reduce(jnp.logical_and, each)


def restart(
    episodes: Episodes, starts: Any, end: jax.Array, t: jax.Array, group: int | None = None,
    first: jax.Array | int = 0, branch: bool = True, memory: Any = (),
) -> Episodes:
    """Puts environments that ended into fresh start states, with random keys of their own.

    Args:
      starts: start states, [M, ...]; the N environments' own stand from `first` on.
      end: which episodes ended, bool [N].
      t: step within the rollout, []; start states move on by one environment of the group each
        step, unless they belong to environments that are not alike.
      group: how many environments share start states; by default as many as `reset_group(N)`.
      first: where this batch's own start states begin.
      branch: whether to do nothing at all, by a conditional, where no episode ended.
      memory: what is remembered where an episode begins, [...] each leaf.
    """
    alike = not jax.tree.leaves(episodes.variation)
    index = first + jnp.arange(end.shape[0])
    if alike:
        group = group or reset_group(end.shape[0])
        index = index - index % group + (index + t) % group

    def select(episodes: Episodes) -> Episodes:
        fresh = jax.tree.map(lambda x: x[index], starts)
        # One start serves several times in a rollout; what is drawn from it is new each time.
        fresh = begin(jax.tree_util.tree_map_with_path(
            lambda path, x: _fold_in(x, t) if _holds_keys(path, x) else x, fresh
        ), costs=episodes.cost_sums)
        return jax.tree.map(lambda f, e: _where(end, f, e), fresh, episodes)

    bare = dataclasses.replace(episodes, variation=(), memory=())
    # On a CPU with few environments most steps end no episode, and then nothing is copied. An
    # accelerator would wait for the host to read the condition, which takes longer than the copy.
    bare = jax.lax.cond(jnp.any(end), select, lambda bare: bare, bare) if branch else select(bare)
    memory = jax.tree.map(
        lambda m, e: _where(end, jnp.broadcast_to(m, e.shape), e), memory, episodes.memory
    )
    return dataclasses.replace(bare, variation=episodes.variation, memory=memory)


def _holds_keys(path: tuple, x: jax.Array) -> bool:
    """Whether a leaf of states holds random keys, [N, ...]: typed ones, or raw ones by their name.

    Raw keys are whole numbers, two or four each by their kind; Brax and Playground call them `rng`.
    """
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return True
    name = jax.tree_util.keystr(path[-1:], simple=True)
    if name not in ("rng", "key") or x.dtype != jnp.uint32 or x.ndim != 2:
        return False
    (width,) = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    return x.shape[1] == width


def _fold_in(keys: jax.Array, t: jax.Array) -> jax.Array:
    fold = jax.random.fold_in
    for _ in range(keys.ndim - (keys.dtype == jnp.uint32)):
        fold = jax.vmap(fold, (0, None))
    return fold(keys, t)


def _where(condition: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    if x.size == 0:
        return y
    return jnp.where(condition.reshape(condition.shape + (1,) * (x.ndim - 1)), x, y)
