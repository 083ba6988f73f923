"""What jtrust asks of an environment, and the description of one that is ready to be trained in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jtrust import checks
from jtrust.environments.costs import cost_names
from jtrust.environments.tracing import trace_pair, trace_variation
from jtrust.environments.warp_physics import Physics

State = Any  # one environment's state; has .obs, .reward and .done
DEFAULT_EPISODE_LENGTH = 1000


def _settle_box(box: Box | Bins) -> None:
    """Checks size and bounds, and makes them Python's own numbers."""
    size, low, high = box.size, box.low, box.high
    checks.whole_number("Box.size", size, example=3)
    for name, bound in (("Box.low", low), ("Box.high", high)):
        if not checks.is_number(bound) or not math.isfinite(bound):
            raise checks.BadArgument(
                name, bound, "must be one finite number, for all dimensions; scale others in step"
            )
    if not low < high:
        raise checks.BadArgument("Box.low", low, f"must be below high, {high}")
    for name, value in (("size", int(size)), ("low", float(low)), ("high", float(high))):
        object.__setattr__(box, name, value)


@dataclasses.dataclass(frozen=True)
class Box:
    """Continuous actions, [size], each within [low, high].

    Policies act on the scale [-1, 1]; `to_environment` clips to it and maps it onto the range,
    which all dimensions share.

    Attributes:
      size: dimensions of an action.
      low: the least number in each.
      high: the largest.

    Raises:
      BadArgument: bounds that are not finite or in order, or a size below 1.
    """

    size: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self):
        _settle_box(self)

    def to_environment(self, action: jax.Array) -> jax.Array:
        """What the environment takes for actions on the policy's scale, [..., size] both."""
        action = jnp.clip(action, -1.0, 1.0)
        if (self.low, self.high) == (-1.0, 1.0):
            return action
        return self.low + (action + 1.0) * 0.5 * (self.high - self.low)

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniform actions on the policy's scale, [*shape, size]."""
        return jax.random.uniform(key, (*shape, self.size), minval=-1.0, maxval=1.0)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One of `n` actions, an integer [].

    Attributes:
      n: how many there are.

    Raises:
      BadArgument: `n` below 1.
    """

    n: int

    def __post_init__(self):
        object.__setattr__(self, "n", checks.whole_number("Discrete.n", self.n, example=3))

    def to_environment(self, action: jax.Array) -> jax.Array:
        """The same integer, [...]."""
        return action

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniform actions, [*shape]."""
        return jax.random.randint(key, shape, 0, self.n)


@dataclasses.dataclass(frozen=True)
class Bins:
    """A `Box` of which policies use `bins` evenly spaced values per dimension, integers [size].

    Bin 0 is `low` and the last one `high` (Tang and Agrawal, 2020, arXiv:1901.10500).

    Attributes:
      size: dimensions of an action.
      bins: values in each, 2 or more.
      low: the least number in each.
      high: the largest.

    Raises:
      BadArgument: bounds that are not finite or in order, a size below 1, or fewer than 2 bins.
    """

    size: int
    bins: int
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self):
        _settle_box(self)
        bins = checks.whole_number("Bins.bins", self.bins, minimum=2, maximum=65536, example=11)
        object.__setattr__(self, "bins", bins)

    def to_environment(self, action: jax.Array) -> jax.Array:
        """The numbers, [..., size], at the middle of bins [..., size]."""
        centre = -1.0 + action * (2.0 / (self.bins - 1))
        return Box(self.size, self.low, self.high).to_environment(centre)

    def sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniform actions, [*shape, size]."""
        return jax.random.randint(key, (*shape, self.size), 0, self.bins)


ActionSpace = Box | Discrete | Bins


@dataclasses.dataclass(frozen=True, eq=False)
class Environment:
    """One environment, described.

    Attributes:
      name: `SUITE/NAME`, `MODULE:CALLABLE`, or a name of the user's own.
      reset: key -> state; pure, one environment. Where there is `vary`: (key, variation) -> state.
      step: (state, action) -> state; pure; with `vary`, (state, action, variation) -> state.
        A state has `obs`, `reward` [] and `done` [], where done
        means a failure or a success after which nothing follows: no value is bootstrapped.
        A limit that the environment sets itself may be told in `state.info["truncation"]`, with
        done or without; where that is true the value is bootstrapped, so it must be false where
        the episode failed at that very step.
      observation: shape and type of `state.obs`, as a `jax.ShapeDtypeStruct`, or a dictionary of
        them.
      action: the space of actions that policies choose from; `step` takes what its
        `to_environment` gives.
      episode_length: steps after which an episode is cut (truncated, not failed).
      options: what `make_env` was given beside the name, to make it again.
      policy_key: which observation the policy reads; None where there is only one vector.
      value_key: which one the value function reads.
      vary: keys [N] -> what is this environment's own for good, such as masses and frictions, a
        pytree [N, ...] of which entry i depends on key i alone. None: all environments are alike.
      platforms: of JAX's devices those that its physics runs on; None: all.
      unwrapped: the object that it describes, for what looks at its physical model (`jtrust
        render`); None where there is none.
      dt: seconds that a step takes; None where nobody has said.
      costs: names of the costs that its states tell (`environments.costs.state_costs`), sorted.
    """

    name: str
    reset: Callable[..., State]
    step: Callable[..., State]
    observation: Any
    action: ActionSpace
    episode_length: int
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    policy_key: str | None = None
    value_key: str | None = None
    vary: Callable[[jax.Array], Any] | None = None
    platforms: tuple[str, ...] | None = None
    unwrapped: Any = None
    dt: float | None = None
    costs: tuple[str, ...] = ()

    def used(self, observation: Any) -> Any:
        """Of an observation, or of anything like it, what the networks read."""
        if self.policy_key is None:
            return observation
        return {key: observation[key] for key in {self.policy_key: 0, self.value_key: 0}}


def select(observation: Any, key: str | None) -> Any:
    """What stands under `key` in a dictionary of observations; a vector as it is (key None)."""
    return observation if key is None else observation[key]


def own_truncation(state: State) -> jax.Array:
    """Whether a state says that it is cut by a limit of the environment's own, bool like `done`."""
    info = getattr(state, "info", None)
    if isinstance(info, Mapping) and "truncation" in info:
        return info["truncation"].astype(bool)
    return jnp.zeros(jnp.shape(state.done), bool)


# Options of `describe` that every suite takes beside its own.
COMMON_OPTIONS = ("episode_length", "policy_observation", "value_observation")


def split_options(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options as (those of `describe`, a suite's own); None is as good as not given."""
    given = {k: v for k, v in options.items() if v is not None}
    common = {k: given.pop(k) for k in COMMON_OPTIONS if k in given}
    return common, given


def describe(
    env: Any, name: str, *, action: ActionSpace | None = None,
    episode_length: int | None = None, options: Mapping[str, Any] | None = None,
    policy_observation: str | None = None, value_observation: str | None = None,
) -> Environment:
    """Describes a Brax `Env`, or any object with pure `reset(key)` and `step(state, action)`.

    It must not restart itself: what follows an end is the loop's business, and the last
    observation is what a time limit is valued by.

    Nothing is computed: shapes are found by abstract evaluation. An object with a method `vary`
    takes the variation as a last argument of both (see `Environment.vary`).

    Args:
      env: the object; its `action`, a `Box` or `Discrete`, or its `action_size`, the number of
        dimensions, gives the space of actions where `action` does not.
      name: what to call it.
      action: the space of its actions; by default `Box(env.action_size)`.
      episode_length: steps after which an episode is cut; by default 1000.
      options: what it takes to make it again.
      policy_observation: of a dictionary of observations, which one the policy reads; by default
        "state", or the only one.
      value_observation: which one the value function reads; by default "privileged_state" if
        there is one, or the policy's.

    Raises:
      BadArgument: where a method or a field is missing or has the wrong shape.
    """
    if isinstance(env, Environment):
        return _described_again(env, action, episode_length, policy_observation, value_observation)
    episode_length = checks.whole_number(
        "episode_length", DEFAULT_EPISODE_LENGTH if episode_length is None else episode_length,
        example=1000,
    )
    for method in ("reset", "step"):
        if not callable(getattr(env, method, None)):
            raise checks.BadArgument("env", env, f"needs a method {method}; or pass a name")
    _refuse_restarts(env)
    if action is None:
        action = _action_of(env)
    elif not isinstance(action, ActionSpace):
        raise checks.BadArgument("action", action, "must be a jtrust.Box or jtrust.Discrete")

    vary = getattr(env, "vary", None)
    key = jax.eval_shape(lambda: jax.random.key(0))
    variation = () if vary is None else (trace_variation(vary, key),)
    sample = jax.ShapeDtypeStruct((), jnp.int32) if isinstance(action, Discrete) else (
        jax.ShapeDtypeStruct((action.size,), jnp.float32)
    )
    physics = Physics()
    reset, step, start = trace_pair(*physics.of(env), key, sample, variation)
    observation = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), start.obs)
    policy_key, value_key = _choose_keys(observation, policy_observation, value_observation)
    for key in {policy_key: 0, value_key: 0}:
        spec = select(observation, key)
        if not isinstance(spec, jax.ShapeDtypeStruct) or spec.ndim != 1 or not spec.size:
            shapes = jax.tree.map(lambda x: x.shape, spec)
            field = "env.obs" if key is None else f"env.obs[{key!r}]"
            raise checks.BadArgument(field, shapes, "must be one vector, [O], that is not empty")
    return Environment(
        name, reset, step, observation, action, episode_length, dict(options or {}),
        policy_key, value_key, vary, physics.platforms, env, _seconds_of_a_step(env),
        cost_names(start),
    )


def _seconds_of_a_step(env: Any) -> float | None:
    """What an object calls `dt`, as Brax and Playground do, where that is a time."""
    try:
        dt = float(env.dt)
    except (AttributeError, TypeError, ValueError):
        return None
    return dt if math.isfinite(dt) and dt > 0 else None


def _described_again(
    environment: Environment, action: Any, episode_length: Any, policy_observation: Any,
    value_observation: Any,
) -> Environment:
    """An environment that is ready, with a time limit and observations chosen anew where given."""
    if action is not None:
        raise checks.BadArgument(
            "action", action, f"{environment.name} has {environment.action} already; leave it out"
        )
    if episode_length is not None:
        environment = with_time_limit(environment, episode_length)
    if policy_observation is None and value_observation is None:
        return environment
    policy_key, value_key = _choose_keys(
        environment.observation, policy_observation or environment.policy_key,
        value_observation or environment.value_key,
    )
    return dataclasses.replace(environment, policy_key=policy_key, value_key=value_key)


def with_time_limit(environment: Environment, episode_length: Any) -> Environment:
    """The same environment with episodes cut after `episode_length` steps, or fewer than before.

    Raises:
      BadArgument: more than before, which the environment itself may cut.
    """
    length = checks.whole_number(
        "episode_length", episode_length, example=environment.episode_length
    )
    if length > environment.episode_length:
        raise checks.BadArgument(
            "episode_length", length,
            f"{environment.name} is made with {environment.episode_length}; where it is made, more "
            "can be given",
        )
    return dataclasses.replace(environment, episode_length=length)


def _refuse_restarts(env: Any) -> None:
    """Raises `BadArgument` for an environment inside a wrapper that restarts it."""
    inner = env
    while inner is not None:
        if "AutoReset" in type(inner).__name__:
            raise checks.BadArgument(
                "env", type(inner).__name__,
                "restarts itself, so that the last observation of an episode is lost; pass the "
                "environment inside, such as brax.envs.get_environment(name)",
            )
        # Brax's wrappers pass on what they lack, so only what an object itself holds is looked at.
        inner = getattr(inner, "__dict__", {}).get("env")


def _action_of(env: Any) -> ActionSpace:
    action = getattr(env, "action", None)
    if isinstance(action, (Box, Discrete)):
        return action
    size = getattr(env, "action_size", None)
    if size is None:
        raise checks.BadArgument(
            "env", env,
            "needs action_size, a whole number, or action, a jtrust.Box or jtrust.Discrete",
        )
    return Box(checks.whole_number("env.action_size", size, example=3))


def _choose_keys(
    observation: Any, policy_key: str | None, value_key: str | None
) -> tuple[str | None, str | None]:
    """Which observations the policy and the value function read; (None, None) of a vector."""
    wanted = {"policy_observation": policy_key, "value_observation": value_key}
    if not isinstance(observation, Mapping):
        for name, key in wanted.items():
            if key is not None:
                raise checks.BadArgument(name, key, "there is one observation; leave it out")
        return None, None
    for name, key in wanted.items():
        if key is not None:
            checks.one_of(name, key, observation, "observation")
    if policy_key is None:
        if len(observation) == 1:
            policy_key = next(iter(observation))
        elif "state" in observation:
            policy_key = "state"
        else:
            raise checks.BadArgument(
                "policy_observation", None, f"choose one of {', '.join(sorted(observation))}"
            )
    if value_key is None:
        value_key = "privileged_state" if "privileged_state" in observation else policy_key
    return policy_key, value_key


def with_action_bins(environment: Environment, bins: int | None) -> Environment:
    """The same environment with each action dimension cut into `bins`; None leaves it as it is.

    Raises:
      BadArgument: fewer than two bins, or an environment whose actions are discrete already.
    """
    if bins is None:
        return environment
    bins = checks.whole_number("action_bins", bins, minimum=2, maximum=65536, example=11)
    action = environment.action
    if isinstance(action, Discrete):
        raise checks.BadArgument(
            "action_bins", bins,
            f"{environment.name} has {action.n} discrete actions already; leave it out",
        )
    binned = Bins(action.size, bins, action.low, action.high)
    return dataclasses.replace(environment, action=binned)
